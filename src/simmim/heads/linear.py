"""The linear head, the default of the paper (section 3.3): one 1x1 convolution and a pixel shuffle."""

from typing import Literal, cast

from torch import nn

from simmim.config import Part
from simmim.shapes import Features, Prediction


class LinearHeadConfig(Part, frozen=True):
    """One linear layer a feature cell."""

    kind: Literal["linear"] = "linear"

    def build(self, *, num_features: int, channels: int, upscale: int) -> "LinearHead":
        """Make the head for its neighbours' numbers."""
        return LinearHead(num_features, channels=channels, upscale=upscale)


class LinearHead(nn.Sequential):
    """A 1x1 convolution to channels * upscale^2, then a pixel shuffle. (Official file: models/simmim.py, `decoder`.)

    The two layers are numbered as in the official file, and keep PyTorch's own initialisation as it does.
    """

    cell_by_cell = True

    def __init__(self, num_features: int, *, channels: int, upscale: int) -> None:
        super().__init__(nn.Conv2d(num_features, channels * upscale**2, kernel_size=1), nn.PixelShuffle(upscale))

    def forward(self, input: Features) -> Prediction:  # noqa: A002 - the name nn.Sequential gives it
        """Predict every cell of the target from the feature cell it lies in."""
        return cast(Prediction, super().forward(input))
