"""Raw pixels, the default target of the paper (section 3.4), at the image's own resolution or a lower one."""

from dataclasses import dataclass
from typing import Literal

import torch.nn.functional as F
from pydantic import Field

from simmim import units
from simmim.config import Part
from simmim.shapes import Images, Originals, Prediction, Shown, TargetMap
from simmim.targets.distance import DISTANCES, Distance


class PixelTarget(Part, frozen=True):
    """The normalised pixels themselves."""

    kind: Literal["pixels"] = "pixels"
    stride: units.Pixels = Field(default=1, gt=0)
    """Pixels a side of one predicted cell: 1 for the full resolution, 8 for 24x24 cells at 192 px."""
    distance: Distance = "l1"
    """How a prediction is compared: l1, l2 (squared error) or smooth_l1."""

    def build(self, *, mean: tuple[float, ...], std: tuple[float, ...]) -> "Pixels":
        """Make the target for images of these statistics."""
        return Pixels(len(mean), stride=self.stride, kind_of_distance=self.distance)


@dataclass(frozen=True)
class Pixels:
    """Pixels averaged over cells of `stride` pixels a side (area averaging; the paper does not name its filter)."""

    channels: int
    stride: int = 1
    kind_of_distance: Distance = "l1"

    @property
    def piece(self) -> int:
        """Pixels a side of what a cell is told from: its own."""
        return self.stride

    def __call__(self, images: Images) -> TargetMap:
        """The mean of each cell, at 1/stride of the image."""
        return images if self.stride == 1 else F.avg_pool2d(images, self.stride)

    def distance(self, prediction: Prediction, target: TargetMap) -> Prediction:
        """The error of every channel of every cell, in float32 whatever the precision of the network."""
        return DISTANCES[self.kind_of_distance](prediction.float(), target.float(), reduction="none")

    def to_images(self, prediction: Prediction, images: Originals) -> Shown:
        """The prediction as it is."""
        return prediction

    def from_images(self, shown: Images, images: Images) -> Prediction | None:
        """The images as the target would have them."""
        return self(shown)
