"""The picture of a run: fixed images under fixed masks, as they are, as the encoder sees them, as the head answers."""

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from simmim.data import Batch, Samples, Statistics, collate
from simmim.files import write_atomically
from simmim.model import SimMIM
from simmim.report import Row, draw_rows, to_rgb
from simmim.shapes import Mask, PixelMask, RawImages
from simmim.tasks.fillings import FILLINGS, fill

TITLES = ("original", "masked", "predicted")
_HIDDEN_GREY = 0.5


class Gallery:
    """The same images under the same masks, whenever it is asked: what the model makes of them, and how good that is."""

    def __init__(self, model: SimMIM, *, samples: Samples, statistics: Statistics, masks: Mask) -> None:
        self._model, self._samples, self._statistics = model, samples, statistics
        self.masks = masks

    @functools.cached_property
    def _batch(self) -> Batch:
        count = len(self.masks)
        return collate([self._samples[(0, number * len(self._samples) // count)] for number in range(count)])

    @property
    def _raw(self) -> Tensor:
        return self._batch.images

    @functools.cached_property
    def _masks(self) -> Mask:
        """What is hidden of what is there."""
        return self.masks if self._batch.valid is None else hide_valid(self.masks, self._batch.valid)

    @property
    def problems(self) -> Mapping[str, str]:
        """The bad files met on the way, path to reason."""
        return self._batch.problems

    @functools.cached_property
    def fillings(self) -> dict[str, float]:
        """The loss of three fillings that have learned nothing.

        Empty where the target asks for probabilities, or where a mask leaves nothing to fill from.
        """
        valid = self._batch.valid
        images, holes = self._statistics.normalise(self._raw, valid), holes_of(self._masks, self._raw)
        holes = holes if valid is None else holes | ~valid
        if holes.flatten(1).all(dim=1).any():
            return {}
        losses: dict[str, float] = {}
        with torch.no_grad():
            for name, filling in FILLINGS.items():
                guess = self._model.target.from_images(fill(images, holes, filling), images)
                if guess is not None:
                    losses[name] = float(self._model.compare(guess, self._model.target(images), self._masks, valid))
        return losses

    def judge(self) -> dict[str, float]:
        """The model's loss on these images, beside that of the fillings on the same masks."""
        device = next(self._model.parameters()).device
        valid = None if self._batch.valid is None else self._batch.valid.to(device)
        images, masks = self._statistics.normalise(self._raw.to(device), valid), self._masks.to(device)
        was_training = self._model.training
        self._model.eval()
        with torch.no_grad():
            arranged = self._model.arrange(self._masks).to(device)
            loss = float(self._model(images, masks, valid, arranged).loss)
        self._model.train(was_training)
        return {"fixed_loss": loss, **{f"fixed_loss_{name}": value for name, value in self.fillings.items()}}

    def draw(self, *, note: str) -> "Drawing":
        """Original, masked and predicted, as the model sees them now."""
        return Drawing(
            draw_reconstructions(self._model, self._raw, self._masks, self._statistics, self._batch.valid), note
        )


class Drawing(NamedTuple):
    """A picture that was not written yet."""

    rows: list[Row]
    note: str

    def write(self, path: Path) -> None:
        """Write it as PNG."""
        titles = TITLES[: len(self.rows[0].panels)]
        picture = draw_rows(self.rows, titles=titles, note=self.note)
        write_atomically(path, lambda part: picture.save(part, format="PNG"))


def draw_reconstructions(
    model: SimMIM, raw: Tensor, masks: Mask, statistics: Statistics, valid: PixelMask | None = None
) -> list[Row]:
    """Original, masked and predicted, one row an image; without the last where a target has no way back to colours.

    Args:
        model: the model; it is evaluated on its own device.
        raw: images as they left the loader.
        masks: what is hidden of each.
        statistics: how the model's images are normalised.
        valid: where a pixel is not empty; the others are shown as the mean.
    """
    device = next(model.parameters()).device
    images = statistics.normalise(raw.to(device), None if valid is None else valid.to(device))
    masks = masks.to(device)
    was_training = model.training
    model.eval()
    with torch.no_grad():
        predicted = [model.reconstruct(images, masks)] if getattr(model.target, "has_colours", True) else []
    model.train(was_training)
    low, high = _shown_range(raw, statistics.denormalise(images))
    original, *shown = (to_rgb(statistics.denormalise(each), low=low, high=high).cpu() for each in (images, *predicted))
    holes = holes_of(masks, images).cpu()
    masked = torch.where(holes[:, None], torch.tensor(_HIDDEN_GREY), original)
    return [Row(panels) for panels in zip(original, masked, *shown, strict=True)]


def hide_valid(masks: Mask, valid: PixelMask) -> Mask:
    """The masks without the tokens that have no valid pixel: nothing empty is hidden."""
    return masks & F.adaptive_max_pool2d(valid[:, None].float(), masks.shape[1:])[:, 0].bool()


def holes_of(masks: Mask, images: RawImages) -> PixelMask:
    """The masks of tokens as masks of pixels."""
    scale = images.shape[2] // masks.shape[1]
    return masks.repeat_interleave(scale, dim=1).repeat_interleave(scale, dim=2)


def _shown_range(raw: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """Black and white of each image and channel: of the format for 8 bits, else of the image itself."""
    flat = values.flatten(2)
    if raw.dtype == torch.uint8:
        return torch.zeros_like(flat[..., 0]), torch.ones_like(flat[..., 0])
    return flat.amin(dim=2), flat.amax(dim=2)
