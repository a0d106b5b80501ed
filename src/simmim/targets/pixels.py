"""Raw pixels, the default target of the paper (section 3.4), at the image's own resolution or a lower one."""

from dataclasses import dataclass
from typing import Literal

import torch.nn.functional as F
from pydantic import Field

from simmim import units
from simmim.config import Part
from simmim.shapes import Images, Prediction, TargetMap

Distance = Literal["l1", "l2", "smooth_l1"]

DISTANCES = {"l1": F.l1_loss, "l2": F.mse_loss, "smooth_l1": F.smooth_l1_loss}
"""Distances between numbers. Smooth L1 turns from square to straight at 1; the paper does not say where."""


class PixelTarget(Part, frozen=True):
    """The normalised pixels themselves."""

    kind: Literal["pixels"] = "pixels"
    stride: units.Pixels = Field(default=1, gt=0)
    """Pixels a side of one predicted cell: 1 for the full resolution, 8 for 24x24 cells at 192 px."""
    distance: Distance = "l1"
    """How a prediction is compared: l1, l2 (squared error) or smooth_l1."""

    def build(self, *, image_channels: int) -> "Pixels":
        """Make the target for images of so many channels."""
        return Pixels(image_channels, stride=self.stride, kind_of_distance=self.distance)


@dataclass(frozen=True)
class Pixels:
    """Pixels averaged over cells of `stride` pixels a side (area averaging; the paper does not name its filter)."""

    channels: int
    stride: int = 1
    kind_of_distance: Distance = "l1"

    def __call__(self, images: Images) -> TargetMap:
        """The mean of each cell, at 1/stride of the image."""
        return images if self.stride == 1 else F.avg_pool2d(images, self.stride)

    def distance(self, prediction: Prediction, target: TargetMap) -> Prediction:
        """The error of every channel of every cell, in float32 whatever the precision of the network."""
        return DISTANCES[self.kind_of_distance](prediction.float(), target.float(), reduction="none")
