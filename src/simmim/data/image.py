"""One image that can be decoded: its size is known from the header, its pixels come when asked for."""

import errno
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import UnidentifiedImageError
from torch import Tensor

from simmim.units import Size

MAX_PIXELS = 500_000_000
"""Height times width above which a file is taken for a decompression bomb. 20 000 x 20 000 still passes."""

# EXIF orientation -> are rows and columns swapped, and which axes of (channels, height, width) are flipped after that.
_ORIENTATIONS: dict[int, tuple[bool, tuple[int, ...]]] = {
    2: (False, (2,)),
    3: (False, (1, 2)),
    4: (False, (1,)),
    5: (True, ()),
    6: (True, (2,)),
    7: (True, (1, 2)),
    8: (True, (1,)),
}


class UnreadableImage(ValueError):  # noqa: N818 - reads as what it says about the file
    """A file that gives no image. The message is one line that completes "this file ..."."""


@contextmanager
def unreadable_on_failure() -> Generator[None]:
    """Turn whatever a decoder throws at a broken file into `UnreadableImage`."""
    try:
        yield
    except (UnreadableImage, MemoryError):
        raise  # a full machine is not the fault of the file
    except Exception as error:
        raise UnreadableImage(_reason(error)) from error


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "is damaged: its header cannot be read"
    if isinstance(error, OSError) and error.errno is not None:
        return "is not there" if error.errno == errno.ENOENT else f"cannot be opened: {error.strerror}"
    if isinstance(error, ImportError):
        wanted = '"simmim[dicom]"' if error.name == "pydicom" else error.name
        return f"needs the package {error.name}, which is not installed: pip install {wanted}"
    if str(error) and not isinstance(error, IndexError | KeyError | TypeError | AttributeError):
        return f"is damaged: {' '.join(str(error).split())}"
    return f"is damaged: the decoder failed with {type(error).__name__}"


def check_size(height: int, width: int, *, max_pixels: int) -> None:
    """Refuse an image without pixels, or with more than `max_pixels`, before anything is decoded."""
    if height < 1 or width < 1:
        raise UnreadableImage(f"has no pixels: {height} x {width}")
    if height * width > max_pixels:
        raise UnreadableImage(
            f"has {height * width} pixels ({height} x {width}), more than data.max_pixels allows ({max_pixels})"
        )


def is_turned(orientation: int) -> bool:
    """Whether an EXIF orientation swaps height and width."""
    return _ORIENTATIONS.get(orientation, (False, ()))[0]


@dataclass(frozen=True, kw_only=True)
class ImageFile:
    """An image whose header has been read. `height` and `width` are those of the upright picture.

    `read` decodes to an array (stored height, stored width, channels); it may decode smaller than stored, but not below
    the size it is given. `orientation` is the EXIF number that says how to turn the stored picture.
    """

    height: int
    width: int
    channels: int
    read: Callable[[Size | None], NDArray[Any]]
    orientation: int = 1
    alpha: bool = False
    """Whether the last channel is transparency; the channels of an array or of a satellite are not."""
    stack: "Callable[[], Stack] | None" = None
    """Looks for further pages, of which this image is the first; None in a file that can have no others."""
    format: str = ""
    """How the file is written by its content, such as JPEG; empty where several files are one image."""

    @property
    def colours(self) -> int:
        """How many channels carry the picture."""
        return self.channels - self.alpha

    def pixels(self, at_least: Size | None = None) -> Tensor:
        """Decode to (channels, height, width): uint8 for 8-bit files, float32 otherwise.

        16-bit unsigned integers are divided by 65535, floats and other integers stay as they are. With `at_least`
        (height, width) a JPEG may come out smaller than it is stored, though never smaller than that.

        Raises `UnreadableImage` when the file is damaged or holds values that are not finite.
        """
        with unreadable_on_failure():
            pixels = tensor_of(self.read(self.stored(at_least)))
        return oriented(pixels, self.orientation)

    def stored(self, at_least: Size | None) -> Size | None:
        """A size of the upright picture as that of the stored one."""
        return (at_least[1], at_least[0]) if at_least and is_turned(self.orientation) else at_least


@dataclass(frozen=True)
class Stack:
    """The pages of a file: how many, and how one of them is opened, counted from 0."""

    count: int
    page: Callable[[int], ImageFile]


def oriented(pixels: Tensor, orientation: int) -> Tensor:
    """A stored picture (channels, height, width) turned upright by its EXIF number."""
    turned, flips = _ORIENTATIONS.get(orientation, (False, ()))
    pixels = pixels.transpose(1, 2) if turned else pixels
    return pixels.flip(flips) if flips else pixels


def tensor_of(array: NDArray[Any]) -> Tensor:
    """(height, width, channels) of any number type to (channels, height, width), uint8 or float32."""
    kind, width = array.dtype.kind, array.dtype.itemsize
    if kind not in "buif":
        raise UnreadableImage(f"holds values of type {array.dtype}; allowed are integers, floats and booleans")
    if kind == "b":
        array = array * np.uint8(255)
    elif (kind, width) == ("u", 2):
        array = array.astype(np.float32) / np.float32(65535)
    elif (kind, width) != ("u", 1):
        with np.errstate(over="ignore"):  # a float64 beyond float32 becomes infinite and is counted below
            array = array.astype(np.float32)
    if kind == "f" and (bad := int(array.size - np.count_nonzero(np.isfinite(array)))):
        raise UnreadableImage(f"is damaged: {bad} of {array.size} values are not finite")
    array = np.asarray(array) if array.flags.writeable else np.array(array)
    return torch.from_numpy(array).permute(2, 0, 1)  # pyright: ignore[reportUnknownMemberType]
