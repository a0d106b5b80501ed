"""Vision tokens: each place of an image as a word of a tokenizer that was trained before (BEiT; paper, section 3.4)."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from simmim import units
from simmim.config import Part
from simmim.shapes import Images, Originals, Prediction, TargetMap
from simmim.targets.distance import cross_entropy
from simmim.targets.vae import DiscreteVAE, load_tokenizer


class TokenTarget(Part, frozen=True):
    """Which word of a tokenizer each place is, by cross-entropy."""

    kind: Literal["tokens"] = "tokens"
    weights: str
    """A tokenizer: made by `simmim tokenizer`, or the published DALL-E encoder's weights."""
    stride: units.Pixels | None = Field(default=None, gt=0)
    """Pixels a side of one token; as the tokenizer has it if not given (8 px for DALL-E). At 16 px the tokenizer is shown the
    image at half its size, as BEiT does."""

    @property
    def reads(self) -> dict[str, Path]:
        """The files that decide the result, by the setting that names them."""
        return {"weights": Path(self.weights)}

    def build(self, *, mean: tuple[float, ...], std: tuple[float, ...]) -> "VisionTokens":
        """Make the target for images of these statistics.

        Raises:
            ValueError: where the file holds no tokenizer, or one for another number of channels.
        """
        vae = load_tokenizer(Path(self.weights))
        if vae.shape.channels != len(mean):
            raise ValueError(
                f"{self.weights} is a tokenizer for {vae.shape.channels} channels, the images have {len(mean)}; train one "
                "on them with: simmim tokenizer DATA --out FILE"
            )
        return VisionTokens(vae, mean, std, self.stride or vae.shape.stride)


@dataclass(frozen=True)
class VisionTokens:
    """The number of each place's word (batch, 1, cells_h, cells_w). The tokenizer is frozen, and no part of the model."""

    vae: DiscreteVAE
    mean: tuple[float, ...]
    std: tuple[float, ...]
    stride: int

    @property
    def channels(self) -> int:
        """Scores of each place."""
        return self.vae.shape.words

    @property
    def has_colours(self) -> bool:
        """Whether tokens can be turned back into colours."""
        return self.vae.decoder is not None

    def __call__(self, images: Images) -> TargetMap:
        """The tokens of the images, computed in full precision."""
        mean, std = self._numbers(images)
        with torch.no_grad(), torch.autocast(images.device.type, enabled=False):
            colours = images.float() * std + mean
            size = [side * self.vae.shape.stride // self.stride for side in images.shape[2:]]
            if size != list(images.shape[2:]):
                colours = F.interpolate(colours, size=size, mode="bicubic", antialias=True)
            return self.vae.to(images.device).tokens(colours)[:, None]

    def distance(self, prediction: Prediction, target: TargetMap) -> Tensor:
        """The cross-entropy of every place."""
        return cross_entropy(prediction, target)

    def to_images(self, prediction: Prediction, images: Originals) -> Originals:
        """The likeliest token of each place through the tokenizer's decoder, at the size of the images.

        Raises:
            ValueError: where the tokenizer has no decoder.
        """
        mean, std = self._numbers(prediction)
        with torch.no_grad():
            drawn = self.vae.to(prediction.device).draw_tokens(prediction.argmax(dim=1))
        drawn = drawn if drawn.shape[2:] == images.shape[2:] else F.interpolate(drawn, size=images.shape[2:])
        return (drawn - mean) / std

    def from_images(self, shown: Images, images: Images) -> Prediction | None:
        """None: a guess without probabilities has no cross-entropy."""
        return None

    def _numbers(self, like: Tensor) -> tuple[Tensor, Tensor]:
        return like.new_tensor(self.mean).view(-1, 1, 1), like.new_tensor(self.std).view(-1, 1, 1)
