"""A two-layer head, one of the paper's alternatives to the linear one (table 2)."""

from typing import Literal, cast

from pydantic import Field
from torch import nn

from simmim.config import Part
from simmim.shapes import Features, Prediction


class MLPHeadConfig(Part, frozen=True):
    """Two linear layers a feature cell. (The paper does not name the activation; GELU is the encoders' own.)"""

    kind: Literal["mlp"] = "mlp"
    hidden: int | None = Field(default=None, gt=0)
    """Width of the layer between; that of the feature map if not given, which fits the published number of parameters."""

    def build(self, *, num_features: int, channels: int, upscale: int) -> "MLPHead":
        """Make the head for its neighbours' numbers."""
        return MLPHead(num_features, hidden=self.hidden or num_features, channels=channels, upscale=upscale)


class MLPHead(nn.Sequential):
    """1x1 convolution, GELU, 1x1 convolution to channels * upscale^2, pixel shuffle."""

    cell_by_cell = True

    def __init__(self, num_features: int, *, hidden: int, channels: int, upscale: int) -> None:
        super().__init__(
            nn.Conv2d(num_features, hidden, kernel_size=1),
            nn.GELU(),
            nn.Conv2d(hidden, channels * upscale**2, kernel_size=1),
            nn.PixelShuffle(upscale),
        )

    def forward(self, input: Features) -> Prediction:  # noqa: A002 - the name nn.Sequential gives it
        """Predict every cell of the target from the feature cell it lies in."""
        return cast(Prediction, super().forward(input))
