"""Pixels as classes: every channel of every cell falls into one of K bins of equal width (paper, section 3.4, table 4)."""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from simmim import units
from simmim.config import Part
from simmim.shapes import Images, Originals, Prediction, Shown, TargetMap
from simmim.targets.distance import cross_entropy


class BinTarget(Part, frozen=True):
    """Which bin each channel falls into, by cross-entropy."""

    kind: Literal["bins"] = "bins"
    bins: int = Field(default=8, ge=2)
    """Number of bins a channel: 8 holds 32 grey levels each, 256 one each."""
    stride: units.Pixels = Field(default=1, gt=0)
    """Pixels a side of one predicted cell."""
    low: float = 0.0
    """Lower edge of the first bin, 8-bit values divided by 255; what lies below falls into it."""
    high: float = 1.0
    """Upper edge of the last bin; what lies above falls into it."""

    def build(self, *, mean: tuple[float, ...], std: tuple[float, ...]) -> "Bins":
        """Make the target for images of these statistics."""
        if self.high <= self.low:
            raise ValueError(f"target.high={self.high:g} must be larger than target.low={self.low:g}")
        return Bins(self, mean, std)


@dataclass(frozen=True)
class Bins:
    """Bin numbers of each channel (batch, channels, cells_h, cells_w); predicted as channels * K scores."""

    settings: BinTarget
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def channels(self) -> int:
        """Scores of each cell."""
        return len(self.mean) * self.settings.bins

    @property
    def stride(self) -> int:
        """Pixels a side of one predicted cell."""
        return self.settings.stride

    @property
    def piece(self) -> int:
        """Pixels a side of what a cell is told from: its own."""
        return self.stride

    def __call__(self, images: Images) -> TargetMap:
        """The bin of every channel of every cell."""
        cells = images if self.stride == 1 else F.avg_pool2d(images, self.stride)
        values = cells * _column(self.std, cells) + _column(self.mean, cells)
        share = (values - self.settings.low) / (self.settings.high - self.settings.low)
        return (share * self.settings.bins).floor().long().clamp(0, self.settings.bins - 1)

    def distance(self, prediction: Prediction, target: TargetMap) -> Tensor:
        """The cross-entropy of every channel of every cell."""
        return cross_entropy(prediction, target)

    def to_images(self, prediction: Prediction, images: Originals) -> Shown:
        """The middle of the likeliest bin of each channel."""
        batch, _, *cells = prediction.shape
        likeliest = prediction.reshape(batch, len(self.mean), -1, *cells).argmax(dim=2)
        width = (self.settings.high - self.settings.low) / self.settings.bins
        values = self.settings.low + (likeliest + 0.5) * width
        return (values - _column(self.mean, values)) / _column(self.std, values)

    def from_images(self, shown: Images, images: Images) -> Prediction | None:
        """None: a guess without probabilities has no cross-entropy."""
        return None


def _column(numbers: tuple[float, ...], like: Tensor) -> Tensor:
    return torch.tensor(numbers, device=like.device).view(1, -1, 1, 1)
