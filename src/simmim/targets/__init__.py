"""What is asked: the signal that should be predicted, computed from the image alone, and the distance to it."""

from typing import Annotated, Protocol

from simmim.config import OneOf
from simmim.shapes import Images, Originals, Prediction, Shown, TargetMap
from simmim.targets.bins import Bins, BinTarget
from simmim.targets.clusters import Clusters, ClusterTarget
from simmim.targets.normalised import LocalPixelTarget, NormalisedPixels, PatchPixelTarget
from simmim.targets.pixels import Pixels, PixelTarget
from simmim.targets.tokens import TokenTarget, VisionTokens
from simmim.targets.vae import DiscreteVAE, VAEShape, load_tokenizer, save_tokenizer

__all__ = [
    "AnyTarget",
    "BinTarget",
    "Bins",
    "ClusterTarget",
    "Clusters",
    "DiscreteVAE",
    "LocalPixelTarget",
    "NormalisedPixels",
    "PatchPixelTarget",
    "PixelTarget",
    "Pixels",
    "Target",
    "TargetConfig",
    "TokenTarget",
    "VAEShape",
    "VisionTokens",
    "load_tokenizer",
    "save_tokenizer",
]


class Target(Protocol):
    """The contract of a target.

    One whose cells can be told from a part of the image alone says by a number `piece` of its very class, not of a parent's,
    how many pixels a side that part has; in training it is then asked only where something is scored, of squares cut out of
    the images.
    """

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

    def to_images(self, prediction: Prediction, images: Originals) -> Shown:
        """The prediction as normalised images at the target's stride, for looking at.

        Args:
            prediction: what the head says.
            images: the originals, for what a target leaves out (its own normalisation, say).
        """
        ...

    def from_images(self, shown: Images, images: Images) -> Prediction | None:
        """What a head would have to say to show these images in the place of the originals.

        None where a target asks for probabilities: a guess without any has no cross-entropy.
        """
        ...


class TargetConfig(Protocol):
    """The contract of a target's settings."""

    def build(self, *, mean: tuple[float, ...], std: tuple[float, ...]) -> Target:
        """Make the target for images whose channels were normalised by these numbers, one a channel."""
        ...


AnyTarget = Annotated[
    TargetConfig,
    OneOf((PixelTarget, LocalPixelTarget, PatchPixelTarget, BinTarget, ClusterTarget, TokenTarget)),
]
