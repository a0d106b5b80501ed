"""SimMIM: the four parts joined in one forward pass."""

import math
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from simmim.encoders import Encoder, Looks
from simmim.heads import HeadConfig
from simmim.shapes import Features, GivenMask, Images, Mask, PixelMask, Prediction, SquareMaps, TargetMap, Tokens
from simmim.squares import Squares, cut_apart, one_above_the_other
from simmim.targets import Target
from simmim.units import Size, check_multiple

Scored = Literal["hidden", "everywhere"]
_EMPTY = 1e-5  # the official guard against a division by no pixels


class MaskedPrediction(NamedTuple):
    """What one forward pass says."""

    loss: Tensor
    """Mean error over what is scored, a scalar in float32."""
    prediction: Prediction | SquareMaps
    """The head's answer for every cell of the target; of the squares alone where `Arranged.scored` names some."""
    target: TargetMap | SquareMaps
    """What should have been predicted."""


class Arranged(NamedTuple):
    """What the masks alone decide of a forward pass.

    Sizes depend on what is hidden, so it is made outside of what is compiled; from masks on the CPU without waiting for a GPU.
    """

    looks: Looks | None
    """What `encoder.arrange` says of the masks."""
    scored: Squares | None
    """The squares in which something is scored; head and distance are computed in no others, and the features in the others
    mean nothing. None for all of them."""

    def to(self, device: torch.device | str) -> "Arranged":
        """The same on a device."""
        there: Arranged = tree_map_only(Tensor, lambda tensor: tensor.to(device, non_blocking=True), self)
        return there


def _said_by_itself(part: object, promise: str) -> Any:
    """What the very class of a part says of it; a subclass may do otherwise than the class that gave the promise."""
    return getattr(part, promise) if promise in vars(part.__class__) else None


class SimMIM(nn.Module):
    """Hide part of an image, encode what is left, predict what was hidden.

    images ── embed ──► tokens ── hide ──► tokens ── encode ──► features ── head ──► prediction
                                   ▲                                                    │
                                 mask                                target(images) ── distance

    Args:
        encoder: the backbone, split after its patch embedding.
        head: settings of the head; it is built here from its neighbours' numbers.
        target: what should be predicted.
        scored: "hidden" compares on the hidden part only (prediction), "everywhere" on all of it (reconstruction; the
            paper's table 5).

    Raises:
        ValueError: where the target's stride does not divide the image, or the encoder cannot see visible tokens only.
    """

    def __init__(self, *, encoder: Encoder, head: HeadConfig, target: Target, scored: Scored = "hidden") -> None:
        super().__init__()
        check_multiple(encoder.image_size, target.stride, "the target's stride")
        encoder.check_visible_only()
        # The head answers in cells that fit both strides; a coarser target then takes the mean of several answers.
        cell = math.gcd(encoder.stride, target.stride)
        self.encoder = encoder
        self.mask_token = nn.Parameter(torch.empty(1, 1, encoder.embed_dim))
        self.head = head.build(
            num_features=encoder.num_features, channels=target.channels, upscale=encoder.stride // cell
        )
        self.target = target
        self.scored: Scored = scored
        self._cell_by_cell = bool(_said_by_itself(self.head, "cell_by_cell"))
        self._piece = int(_said_by_itself(target, "piece") or 0)
        self._answers_a_cell = target.stride // cell
        self._square = math.lcm(encoder.stride, target.stride)  # holds whole cells of both, so it can be scored alone
        nn.init.trunc_normal_(self.mask_token, std=0.02)

    def forward(
        self, images: Images, mask: GivenMask, valid: PixelMask | None = None, arranged: Arranged | None = None
    ) -> MaskedPrediction:
        """Hide, encode, predict, compare.

        Args:
            images: normalised images (batch, channels, height, width).
            mask: true, or not 0, where a token is hidden (batch, grid_h, grid_w); or one value for each cell of several.
            valid: true where a pixel may be compared (batch, height, width); all of them if not given.
            arranged: what `arrange` says of these masks. With it head, target and distance are computed only where
                something is scored: the loss and its gradients are the same, and the prediction is of those squares alone.
        """
        mask = self.on_tokens(mask)
        looks, scored = arranged or (None, None)
        features = self.features(images, mask, looks)
        if scored is None:
            prediction, target = self.predict(features), self.target(images)
            return MaskedPrediction(self.compare(prediction, target, mask, valid), prediction, target)
        prediction, target = self._predict_squares(features, scored), self._target_of_squares(images, scored)
        weights = scored.take(self.score_map(mask, valid)[:, None], self._squares)[:, 0]
        loss = self._mean(self.target.distance(prediction, target), weights, some_are_invalid=valid is not None)
        return MaskedPrediction(loss, prediction, target)

    def arrange(self, mask: GivenMask) -> Arranged:
        """What the masks decide of a forward pass for training, on their device; see `Arranged`."""
        mask = self.on_tokens(mask)
        scored = Squares.of(mask, side=self._square // self.encoder.patch_size) if self.scored == "hidden" else None
        if scored is None or not self._cell_by_cell:
            return Arranged(self.encoder.arrange(mask), scored)
        wanted = scored.cells(len(mask), self._squares, side=self._square // self.encoder.stride)
        return Arranged(self.encoder.arrange(mask, wanted), scored)

    def features(self, images: Images, mask: GivenMask, looks: Looks | None = None) -> Features:
        """What the encoder makes of images with hidden tokens: its last map (batch, channels, rows, columns)."""
        mask = self.on_tokens(mask)
        tokens = self.hide(self.encoder.embed(images), mask)
        return self.encoder.encode_hidden(tokens, mask, looks)

    def on_tokens(self, mask: GivenMask) -> Mask:
        """True and false for each token, also where a mask has ones and zeros, or a value a cell of several tokens."""
        mask = mask.bool()
        grid = [side // self.encoder.patch_size for side in self.encoder.image_size]
        cells = mask.shape[1:]
        if len(cells) != 2 or any(not count or side % count for side, count in zip(grid, cells, strict=True)):
            return mask  # `hide` says what is wrong with it
        rows, columns = (side // count for side, count in zip(grid, cells, strict=True))
        if rows == columns == 1:
            return mask
        return mask.repeat_interleave(rows, dim=1).repeat_interleave(columns, dim=2)

    def shards(self) -> list[nn.Module]:
        """The parts whose weights need to be whole only while they run, where weights are spread over processes."""
        return [*self.encoder.blocks, self.head]

    def hide(self, tokens: Tokens, mask: Mask) -> Tokens:
        """Put the mask token where the mask is true."""
        if mask.shape != tokens.shape[:3]:
            raise ValueError(
                f"the mask is {tuple(mask.shape)}, the tokens are {tuple(tokens.shape[:3])} (batch, rows, columns); a mask "
                f"has one value for each model patch of {self.encoder.patch_size} px"
            )
        return torch.where(mask[..., None].bool(), self.mask_token.to(tokens.dtype), tokens)

    def predict(self, features: Features) -> Prediction:
        """The head's answer at the target's stride."""
        answer: Tensor = self.head(features)
        return answer if self._answers_a_cell == 1 else F.avg_pool2d(answer, self._answers_a_cell)

    def compare(self, prediction: Prediction, target: TargetMap, mask: Mask, valid: PixelMask | None = None) -> Tensor:
        """The loss: errors summed over what is scored, divided by its cells and by the channels.

        (Official file: models/simmim.py, where the same sum is divided by the hidden pixels + 1e-5 and by 3 channels.)
        """
        errors = self.target.distance(prediction, target)
        return self._mean(errors, self.score_map(mask, valid), some_are_invalid=valid is not None)

    @staticmethod
    def _mean(errors: Tensor, weights: Tensor, *, some_are_invalid: bool) -> Tensor:
        weights = weights.to(errors.dtype)
        if some_are_invalid:  # what stands there may be no number
            errors = torch.where(weights[:, None] > 0, errors, 0)
        return (errors * weights[:, None]).sum() / (weights.sum() + _EMPTY) / errors.shape[1]

    @property
    def _squares(self) -> Size:
        """Rows and columns of squares of an image."""
        height, width = self.encoder.image_size
        return height // self._square, width // self._square

    def _predict_squares(self, features: Features, squares: Squares) -> SquareMaps:
        """The prediction there; computed there alone where the head answers cell by cell."""
        if self._cell_by_cell:
            column = one_above_the_other(squares.take(features, self._squares))
            return cut_apart(self.predict(column), len(squares.numbers))
        return squares.take(self.predict(features), self._squares)

    def _target_of_squares(self, images: Images, squares: Squares) -> SquareMaps:
        """The target there; computed there alone where the target needs no more than a part of a square."""
        if self._piece and self._square % self._piece == 0:
            return self.target(squares.take(images, self._squares))
        return squares.take(self.target(images), self._squares)

    def score_map(self, mask: Mask, valid: PixelMask | None = None) -> Tensor:
        """How much each cell of the target counts, 0 to 1 (batch, cells_h, cells_w): the part of it that is hidden.

        A cell with a pixel that is not valid counts nothing.
        """
        if self.scored == "everywhere":
            mask = torch.ones_like(mask)
        shared = math.gcd(self.encoder.patch_size, self.target.stride)
        fine = mask.float().repeat_interleave(self.encoder.patch_size // shared, dim=1)
        fine = fine.repeat_interleave(self.encoder.patch_size // shared, dim=2)
        cells = self.target.stride // shared
        hidden = fine if cells == 1 else F.avg_pool2d(fine, cells)
        return hidden if valid is None else hidden * self._whole_cells(valid)

    def _whole_cells(self, valid: PixelMask) -> Tensor:
        stride = self.target.stride
        return -F.max_pool2d(-valid.float(), stride) if stride > 1 else valid.float()

    def reconstruct(self, images: Images, mask: GivenMask) -> Images:
        """The images with the prediction in their holes, for looking at; as colours, whatever the target is."""
        mask = self.on_tokens(mask)
        whole = Arranged(self.encoder.arrange(mask), None)
        prediction = self.target.to_images(self(images, mask, None, whole).prediction.float(), images)
        patch = self.encoder.patch_size
        holes = mask.bool().repeat_interleave(patch, dim=1).repeat_interleave(patch, dim=2)[:, None]
        return torch.where(holes, F.interpolate(prediction, size=images.shape[2:]), images)
