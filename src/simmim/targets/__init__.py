"""What is asked: the signal that should be predicted, computed from the image alone, and the distance to it."""

from typing import Annotated, Protocol

from simmim.config import OneOf
from simmim.shapes import Images, Prediction, TargetMap
from simmim.targets.pixels import Pixels, PixelTarget

__all__ = ["AnyTarget", "PixelTarget", "Pixels", "Target", "TargetConfig"]


class Target(Protocol):
    """The contract of a target."""

    @property
    def channels(self) -> int:
        """Numbers predicted for each cell."""
        ...

    @property
    def stride(self) -> int:
        """Pixels a side of one predicted cell."""
        ...

    def __call__(self, images: Images) -> TargetMap:
        """What should be predicted, at 1/stride of the image."""
        ...

    def distance(self, prediction: Prediction, target: TargetMap) -> Prediction:
        """The error of every number (or group of numbers) of every cell, not yet averaged."""
        ...


class TargetConfig(Protocol):
    """The contract of a target's settings."""

    def build(self, *, image_channels: int) -> Target:
        """Make the target for images of so many channels."""
        ...


AnyTarget = Annotated[TargetConfig, OneOf((PixelTarget,))]
