"""Mean and spread of the pixels of a data set, and how many channels it has."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from simmim.data.channels import check_channels, fit_channels
from simmim.data.image import MAX_PIXELS, ImageFile, UnreadableImage
from simmim.data.source import Source
from simmim.data.transforms import resize, resize_valid
from simmim.data.valid import Invalid, pixels_and_valid
from simmim.seeds import stream
from simmim.shapes import Images, PixelMask, RawImages

_LONGEST_SIDE = 256  # larger images are measured at this size, about that of a training sample
_NAMED = 20  # files of each number of channels that an error lists
_CONSTANT = 1e-6  # a spread below this share of the mean is rounding


@dataclass(frozen=True)
class Statistics:
    """What training pixels look like, 8-bit values divided by 255; one number a channel.

    A channel that never varies has the spread 1, so that normalising it gives zeros and not a division by zero.
    """

    channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    measured_on: int = 0
    """How many images that was; 0 where the numbers were given."""

    def normalise(self, raw: RawImages, valid: PixelMask | None = None) -> Images:
        """Images as they left the loader, (batch, channels, height, width), with mean 0 and spread 1 a channel.

        Pixels that are not valid become 0, the mean.
        """
        mean, std = self._column(self.mean, raw), self._column(self.std, raw)
        images = raw.sub(mean).div_(std) if raw.is_floating_point() else raw.float().sub_(mean * 255).div_(std * 255)
        return images if valid is None else torch.where(valid[:, None], images, 0)

    def denormalise(self, images: Images) -> Images:
        """The other way round, 8-bit values divided by 255."""
        return images * self._column(self.std, images) + self._column(self.mean, images)

    def _column(self, numbers: tuple[float, ...], like: Tensor) -> Tensor:
        return torch.tensor(numbers, device=like.device).view(1, -1, 1, 1)


class _Sums(NamedTuple):
    """Of one image: the number of pixels, and a sum and a sum of squares a channel."""

    pixels: int
    values: NDArray[np.float64]
    squares: NDArray[np.float64]


def measure(
    source: Source,
    *,
    channels: int | None = None,
    samples: int = 1024,
    seed: int,
    max_pixels: int = MAX_PIXELS,
    invalid: Invalid | None = None,
) -> Statistics:
    """Measure images spread evenly over the source; images above 256 px a side are made smaller first.
    Pixels that are `invalid` do not count.

    Without `channels` they are found out: what all images have, transparency aside; 3 where grey and colour are mixed.
    Files that cannot be read are left out. Raises `ValueError` if none can be, or if the images do not go together.
    """
    measured: list[_Sums] = []
    names: dict[int, list[str]] = {}
    failures: dict[str, str] = {}
    for index in _evenly(len(source), samples, seed):
        try:
            image = source.open(index, max_pixels=max_pixels)
            wanted = channels or image.colours
            check_channels(image, wanted=wanted)
            small, valid = _small(image, invalid)
            pixels = fit_channels(small, channels=wanted, alpha=image.alpha)
        except (UnreadableImage, OSError) as error:
            failures[source.name(index)] = str(error)
            continue
        names.setdefault(len(pixels), []).append(source.name(index))
        measured.append(_sums(pixels, valid))
    if not measured:
        path, reason = next(iter(failures.items()), ("the source", "is empty"))
        raise ValueError(f"none of {len(failures)} images could be measured; the first: {path} {reason}")
    return _combined(measured, channels=_agreed(names))


def _evenly(count: int, samples: int, seed: int) -> list[int]:
    if count <= samples:
        return list(range(count))
    start = stream(seed, "statistics").random()
    return [int((position + start) * count / samples) for position in range(samples)]


def _small(image: ImageFile, invalid: Invalid | None) -> tuple[Tensor, Tensor | None]:
    shrink = min(1.0, _LONGEST_SIDE / max(image.height, image.width))
    size = (max(1, round(image.height * shrink)), max(1, round(image.width * shrink)))
    if invalid is None:
        pixels, valid = image.pixels(size), None
        pixels = pixels if tuple(pixels.shape[1:]) == size else resize(pixels, size)
    else:
        pixels, valid = resize_valid(*pixels_and_valid(image, size, invalid=invalid), size)
    return pixels.to(torch.float64) / (1 if pixels.is_floating_point() else 255), valid


def _sums(pixels: Tensor, valid: Tensor | None) -> _Sums:
    flat = pixels.flatten(start_dim=1) if valid is None else pixels[:, valid]
    return _Sums(flat.shape[1], flat.sum(dim=1).numpy(), flat.square().sum(dim=1).numpy())


def _agreed(names: Mapping[int, Sequence[str]]) -> int:
    """The number of channels of the data set; `names` are the files of each number found."""
    found = set(names)
    if len(found) == 1 or found == {1, 3}:
        return max(found)
    named = "".join(f"\n  {count} channels: {_some(files)}" for count, files in sorted(names.items()))
    raise ValueError(f"the images differ in their number of channels; set data.channels, or part them:{named}")


def _some(files: Sequence[str]) -> str:
    more = len(files) - _NAMED
    return ", ".join(files[:_NAMED]) + (f" and {more} more of those measured" if more > 0 else "")


def _combined(measured: list[_Sums], *, channels: int) -> Statistics:
    pixels = sum(image.pixels for image in measured)
    if not pixels:
        raise ValueError(f"none of the {len(measured)} images measured has a valid pixel; look at data.invalid")
    mean = np.sum([np.broadcast_to(image.values, channels) for image in measured], axis=0) / pixels
    square = np.sum([np.broadcast_to(image.squares, channels) for image in measured], axis=0) / pixels
    std = np.sqrt(np.maximum(square - mean**2, 0))
    std = np.where(std > _CONSTANT * np.maximum(np.abs(mean), _CONSTANT), std, 1.0)
    return Statistics(channels, tuple(map(float, mean)), tuple(map(float, std)), len(measured))
