"""Which part of an image a sample shows, and how it becomes pixels of the wanted size.

A view says where (`box`, arithmetic on the header's size), `render` does it: it asks the decoder for the smallest
picture that still covers the crop, cuts, resizes, flips.
"""

import math
from typing import Literal, NamedTuple, Protocol, Self, TypeAlias

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor
from torch.nn import functional
from torchvision.transforms.v2 import InterpolationMode  # pyright: ignore[reportMissingTypeStubs]
from torchvision.transforms.v2 import functional as tv  # pyright: ignore[reportMissingTypeStubs]

from simmim.config import Part
from simmim.data.image import ImageFile
from simmim.data.valid import Invalid, pixels_and_valid
from simmim.units import Size

_LEAST = 1e-6  # guards the division where no pixel is valid

Interpolation: TypeAlias = Literal["bilinear", "bicubic"]
"""How pixels are resized; always with antialias."""

# Elsewhere floats are resized more quickly than bytes; `tv.resize` knows.
_BYTES_ARE_QUICK = torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")

_TRIES = 10  # as torchvision's RandomResizedCrop, whose distribution the paper's runs had


class Box(NamedTuple):
    """A crop in pixels of the upright image, and whether it is shown mirrored."""

    top: int
    left: int
    height: int
    width: int
    flip: bool = False


class View(Protocol):
    """A part with settings that says which box of an image a sample shows."""

    def box(self, height: int, width: int, *, size: Size, generator: np.random.Generator) -> Box:
        """Choose the box in an image of height x width that will be resized to `size` (height, width)."""
        ...


class RandomCrop(Part, frozen=True):
    """A random crop, randomly mirrored: the paper's only augmentation (section 4.1; official data/data_simmim.py).

    The distribution is that of torchvision's RandomResizedCrop.
    """

    kind: Literal["random_crop"] = "random_crop"
    scale: tuple[float, float] = (0.67, 1.0)
    """Smallest and largest share of the image's area that a crop covers."""
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    """Smallest and largest width to height of a crop, relative to that of the target size."""
    flip: bool = True
    """Whether every other image is mirrored left to right."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        for name, (low, high), most in (("scale", self.scale, 1.0), ("ratio", self.ratio, math.inf)):
            if not 0 < low <= high <= most:
                raise ValueError(f"{name}=[{low:g}, {high:g}] is not a range; allowed: 0 < low <= high <= {most:g}")
        return self

    def box(self, height: int, width: int, *, size: Size, generator: np.random.Generator) -> Box:
        """Draw the box; see `View`."""
        flip = self.flip and bool(generator.random() < 0.5)
        aspect = size[1] / size[0]
        for _ in range(_TRIES):
            area = height * width * _between(*self.scale, generator)
            ratio = aspect * math.exp(_between(math.log(self.ratio[0]), math.log(self.ratio[1]), generator))
            box_width, box_height = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if 0 < box_width <= width and 0 < box_height <= height:
                top = int(generator.integers(0, height - box_height + 1))
                left = int(generator.integers(0, width - box_width + 1))
                return Box(top, left, box_height, box_width, flip)
        # An image too long for any crop of the allowed ratios: the largest one, from its middle.
        ratio = min(max(width / height, aspect * self.ratio[0]), aspect * self.ratio[1])
        return _centre(height, width, ratio=ratio)._replace(flip=flip)


def _between(low: float, high: float, generator: np.random.Generator) -> float:
    """What `generator.uniform` draws, at a tenth of its price."""
    return low + (high - low) * generator.random()


class CentreCrop(Part, frozen=True):
    """The middle of the image in the aspect of the target size; nothing is random."""

    kind: Literal["centre_crop"] = "centre_crop"
    resize: float = Field(default=1.0, ge=1)
    """How much larger than the target the image is made before the crop: 8/7, written 1.1428571428571428, is 256 to 224,
    1 loses the least."""

    def box(self, height: int, width: int, *, size: Size, generator: np.random.Generator) -> Box:
        """The box; the generator is not used. See `View`."""
        return _centre(height, width, ratio=size[1] / size[0], zoom=self.resize)


def _centre(height: int, width: int, *, ratio: float, zoom: float = 1.0) -> Box:
    """The largest box of a ratio (width to height) in the middle of an image, made smaller by `zoom`."""
    box_height = max(1, round(min(height, width / ratio) / zoom))
    box_width = max(1, round(min(width, height * ratio) / zoom))
    return Box((height - box_height) // 2, (width - box_width) // 2, box_height, box_width)


def render_centre(image: ImageFile, *, short: Size, size: Size, interpolation: Interpolation) -> Tensor:
    """Resize a whole image until it just covers `short` (height, width), then cut `size` from its middle.

    The usual evaluation: the shorter side to 256, the middle 224 of it (official data/data_finetune.py).
    """
    if short[0] * image.width >= short[1] * image.height:
        whole = (short[0], short[0] * image.width // image.height)
    else:
        whole = (short[1] * image.height // image.width, short[1])
    pixels = image.pixels((min(whole[0], image.height), min(whole[1], image.width)))
    return tv.center_crop(resize(pixels, whole, interpolation=interpolation), list(size))


def render(image: ImageFile, *, box: Box, size: Size, interpolation: Interpolation = "bilinear") -> Tensor:
    """Show a box of an image as (channels, height, width) of the given size; uint8 stays uint8.

    With antialias. Raises `UnreadableImage` where the file turns out to be damaged.
    """
    pixels = resize(_cut(image.pixels(_covering(image, box, size)), image, box), size, interpolation=interpolation)
    return pixels.flip(-1) if box.flip else pixels


def render_valid(image: ImageFile, *, box: Box, size: Size, invalid: Invalid) -> tuple[Tensor, Tensor]:
    """As `render`, with a map of the valid pixels (height, width) that goes through the same cut, resize and flip.

    A pixel is the mean of the valid ones it is made of, and is valid where these are more than half; empty ones are 0.
    """
    pixels, valid = pixels_and_valid(image, _covering(image, box, size), invalid=invalid)
    pixels, valid = resize_valid(_cut(pixels, image, box), _cut(valid[None], image, box)[0], size)
    return (pixels.flip(-1), valid.flip(-1)) if box.flip else (pixels, valid)


def resize_valid(pixels: Tensor, valid: Tensor, size: Size) -> tuple[Tensor, Tensor]:
    """Resize pixels (channels, height, width) without what is empty, and the map of the valid ones (height, width)."""
    if bool(valid.all()):
        return resize(pixels, size), valid.new_ones(size)
    share = resize(valid[None].float(), size)
    means = resize(pixels.float() * valid, size) / share.clamp(min=_LEAST)
    kept = share[0] > 0.5
    means = torch.where(kept, means, 0)
    return means if pixels.is_floating_point() else means.round().clamp(0, 255).to(pixels.dtype), kept


def _covering(image: ImageFile, box: Box, size: Size) -> Size:
    """Rows and columns of the whole picture at which the box alone still has `size` pixels."""
    covering = (math.ceil(image.height * size[0] / box.height), math.ceil(image.width * size[1] / box.width))
    return min(covering[0], image.height), min(covering[1], image.width)


def _cut(pixels: Tensor, image: ImageFile, box: Box) -> Tensor:
    top, bottom = _scaled(box.top, box.height, pixels.shape[1] / image.height)
    left, right = _scaled(box.left, box.width, pixels.shape[2] / image.width)
    return pixels[:, top:bottom, left:right]


def resize(pixels: Tensor, size: Size, *, interpolation: Interpolation = "bilinear") -> Tensor:
    """Resize (channels, height, width) to `size`, with antialias; the number type stays."""
    if interpolation == "bilinear" and pixels.dtype == torch.uint8 and _BYTES_ARE_QUICK and pixels.shape[1:] != size:
        # What torchvision comes to, without its detours.
        return functional.interpolate(pixels[None], size, mode="bilinear", antialias=True)[0]
    return tv.resize(pixels, list(size), interpolation=InterpolationMode(interpolation), antialias=True)


def _scaled(start: int, length: int, scale: float) -> tuple[int, int]:
    first = round(start * scale)
    return first, max(first + 1, round((start + length) * scale))
