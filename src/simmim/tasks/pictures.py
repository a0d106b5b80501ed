"""The picture of a run: fixed images under fixed masks, as they are, as the encoder sees them, as the head answers."""

from pathlib import Path

import torch
from torch import Tensor

from simmim.data import Samples, Statistics, collate
from simmim.files import write_atomically
from simmim.model import SimMIM
from simmim.report import Row, draw_rows, to_rgb
from simmim.shapes import Images, Mask

TITLES = ("original", "masked", "predicted")
_HIDDEN_GREY = 0.5


class PictureTaker:
    """Draws the same images under the same masks, whenever it is asked to."""

    def __init__(self, model: SimMIM, *, samples: Samples, statistics: Statistics, masks: Mask) -> None:
        self._model = model
        self._samples = samples
        self._statistics = statistics
        self.masks = masks

    def take(self, path: Path, *, note: str) -> None:
        """Draw a picture; the model's mode is left as it was."""
        count = len(self.masks)
        indices = [number * len(self._samples) // count for number in range(count)]
        raw = collate([self._samples[(0, index)] for index in indices]).images
        rows = draw_reconstructions(self._model, raw, self.masks, self._statistics)
        write_atomically(path, lambda part: draw_rows(rows, titles=TITLES, note=note).save(part, format="PNG"))


def draw_reconstructions(model: SimMIM, raw: Tensor, masks: Mask, statistics: Statistics) -> list[Row]:
    """Original, masked and predicted, one row an image.

    Args:
        model: the model; it is evaluated on its own device.
        raw: images as they left the loader.
        masks: what is hidden of each.
        statistics: how the model's images are normalised.
    """
    device = next(model.parameters()).device
    images = statistics.normalise(raw.to(device))
    masks = masks.to(device)
    was_training = model.training
    model.eval()
    with torch.no_grad():
        predicted = model.reconstruct(images, masks)
    model.train(was_training)
    low, high = _shown_range(raw, statistics.denormalise(images))
    shown = [to_rgb(statistics.denormalise(each), low=low, high=high).cpu() for each in (images, predicted)]
    holes = _holes(masks, images).cpu()
    masked = torch.where(holes, torch.tensor(_HIDDEN_GREY), shown[0])
    return [Row(panels) for panels in zip(shown[0], masked, shown[1], strict=True)]


def _holes(masks: Mask, images: Images) -> Tensor:
    scale = images.shape[2] // masks.shape[1]
    return masks.repeat_interleave(scale, dim=1).repeat_interleave(scale, dim=2)[:, None]


def _shown_range(raw: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """Black and white of each image and channel: of the format for 8 bits, else of the image itself."""
    flat = values.flatten(2)
    if raw.dtype == torch.uint8:
        return torch.zeros_like(flat[..., 0]), torch.ones_like(flat[..., 0])
    return flat.amin(dim=2), flat.amax(dim=2)
