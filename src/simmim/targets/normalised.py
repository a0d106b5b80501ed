"""Pixels normalised where they stand: in a window around each (SwinV2), or in the patch they lie in (MAE)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch.nn.functional as F
from pydantic import Field, field_validator
from torch import Tensor

from simmim import units
from simmim.config import Part
from simmim.shapes import Images, Originals, Prediction, Shown, TargetMap
from simmim.targets.distance import DISTANCES, Distance

_EPSILON = 1e-6  # of both published codes


class LocalMoments(NamedTuple):
    """Mean and standard deviation at every pixel, of each channel or of all of them."""

    mean: Tensor
    std: Tensor


class LocalPixelTarget(Part, frozen=True):
    """Each pixel less the mean of the window around it, divided by its standard deviation.

    (Official file: microsoft/Swin-Transformer models/simmim.py, `norm_targets`; not in the SimMIM paper.)
    """

    kind: Literal["local_pixels"] = "local_pixels"
    window: units.Pixels = Field(default=47, gt=1)
    """Pixels a side of the window; odd, so that it has a middle. At the border of the image it is cut."""
    distance: Distance = "l1"
    """How a prediction is compared: l1, l2 (squared error) or smooth_l1."""

    @field_validator("window")
    @classmethod
    def _odd(cls, window: int) -> int:
        if window % 2 == 0:
            raise ValueError(f"a window of {window} px has no middle; nearest: {window - 1} or {window + 1}")
        return window

    def build(self, *, mean: tuple[float, ...], std: tuple[float, ...]) -> "NormalisedPixels":
        """Make the target for images of these statistics."""
        window = self.window
        return NormalisedPixels(len(mean), self.distance, lambda images: window_moments(images, window), window=window)


class PatchPixelTarget(Part, frozen=True):
    """Each pixel less the mean of its patch, divided by the patch's standard deviation, over all channels together.

    (MAE, arXiv 2111.06377, section 3.)
    """

    kind: Literal["patch_pixels"] = "patch_pixels"
    patch: units.Pixels = Field(default=16, gt=1)
    """Pixels a side of a patch; it must divide the image."""
    distance: Distance = "l1"
    """How a prediction is compared: l1, l2 (squared error) or smooth_l1."""

    def build(self, *, mean: tuple[float, ...], std: tuple[float, ...]) -> "NormalisedPixels":
        """Make the target for images of these statistics."""
        patch = self.patch
        return NormalisedPixels(len(mean), self.distance, lambda images: patch_moments(images, patch), piece=patch)


@dataclass(frozen=True)
class NormalisedPixels:
    """Pixels at full resolution, normalised by moments of their surroundings in the whole, unmasked image."""

    channels: int
    kind_of_distance: Distance
    moments: Callable[[Images], LocalMoments]
    stride: int = 1
    window: int = 0
    """Pixels a side of the window around each pixel; 0 where it is not such a window."""
    piece: int = 0
    """Pixels a side of what a cell is told from; 0 where it is not such a part."""

    def __call__(self, images: Images) -> TargetMap:
        """The normalised pixels."""
        mean, std = self.moments(images)
        return (images - mean) / std

    def distance(self, prediction: Prediction, target: TargetMap) -> Prediction:
        """The error of every channel of every pixel, in float32 whatever the precision of the network."""
        return DISTANCES[self.kind_of_distance](prediction.float(), target.float(), reduction="none")

    def to_images(self, prediction: Prediction, images: Originals) -> Shown:
        """The prediction with the mean and spread of the original put back: only its structure is the model's own."""
        mean, std = self.moments(images)
        return prediction * std + mean

    def from_images(self, shown: Images, images: Images) -> Prediction | None:
        """The images normalised as the originals are."""
        mean, std = self.moments(images)
        return (shown - mean) / std


def window_moments(images: Images, window: int) -> LocalMoments:
    """Moments of the window around each pixel, cut at the border; the variance with the n/(n-1) correction."""
    rows, columns = (_count(images.shape[axis], window, images) for axis in (2, 3))
    count = rows[:, None] * columns[None, :]
    mean = _window_mean(images, window)
    variance = (_window_mean(images**2, window) - mean**2) * (count / (count - 1))
    return LocalMoments(mean, (variance.clamp_min(0) + _EPSILON).sqrt())


def _window_mean(images: Images, window: int) -> Tensor:
    """Mean of each window: of rows, then of columns, which is the same and takes 2 * window steps instead of window^2."""
    half = window // 2
    rows = F.avg_pool2d(images, (window, 1), stride=1, padding=(half, 0), count_include_pad=False)
    return F.avg_pool2d(rows, (1, window), stride=1, padding=(0, half), count_include_pad=False)


def _count(length: int, window: int, like: Tensor) -> Tensor:
    """How many of a window's places lie inside a line of pixels, at each of them."""
    half = window // 2
    return like.new_tensor([min(at + half, length - 1) - max(at - half, 0) + 1 for at in range(length)])


def patch_moments(images: Images, patch: int) -> LocalMoments:
    """Moments of the patch each pixel lies in, all channels together; the variance with the n/(n-1) correction.

    Raises:
        ValueError: where patches do not divide the image.
    """
    height, width = images.shape[2:]
    if height % patch or width % patch:
        raise ValueError(
            f"target.patch={patch} px does not divide an image of {height}x{width} px; "
            f"nearest height: {units.nearest_multiples(height, of=patch)}, width: {units.nearest_multiples(width, of=patch)}"
        )
    count = images.shape[1] * patch**2
    mean = F.avg_pool2d(images, patch).mean(dim=1, keepdim=True)
    square = F.avg_pool2d(images**2, patch).mean(dim=1, keepdim=True)
    variance = (square - mean**2) * (count / (count - 1))
    std = (variance.clamp_min(0) + _EPSILON).sqrt()
    return LocalMoments(*(F.interpolate(each, scale_factor=patch, mode="nearest") for each in (mean, std)))
