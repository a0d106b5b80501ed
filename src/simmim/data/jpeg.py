"""Ordinary JPEG files without Pillow's detours: the same sizes, the same pixels, less time.

Needs simplejpeg (the extra "fast"). What is not ordinary, or looks odd, is left to Pillow, which has the last word on what
is damaged.
"""

import logging
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from numpy.typing import NDArray

from simmim.data.image import ImageFile, check_size
from simmim.units import Size

try:
    import simplejpeg
except ImportError:
    simplejpeg = None

_log = logging.getLogger(__name__)

# The second bytes of markers (ITU-T T.81, table B.1).
_FRAMES = (0xC0, 0xC1, 0xC2)  # baseline, extended, progressive: what Pillow reads, too
_SKIPPED = (0xC4, 0xDB, 0xDD, 0xFE, 0xE0, *range(0xE2, 0xF0))  # tables, restarts, comments, what programs add
_FRAME_BYTES = 10  # of a marker with its length, precision, height, width and number of channels

_COLOURS = {1: "GRAY", 3: "RGB"}
_SHRINKS = (8, 4, 2)  # how many times smaller than stored a picture can be decoded


class _Frame(NamedTuple):
    height: int
    width: int
    channels: int


def open_plain_jpeg(data: bytes, *, max_pixels: int, otherwise: Callable[[], ImageFile]) -> ImageFile | None:
    """Read the header of an 8-bit JPEG in grey or colour that says nothing of its orientation.

    Args:
        data: the file.
        max_pixels: more than these are refused with `UnreadableImage`.
        otherwise: opens the file where its pixels turn out to be odd.

    Returns:
        None where it is a JPEG of another kind, or simplejpeg is not installed.
    """
    if simplejpeg is None or (frame := _frame(data)) is None:
        return None
    check_size(frame.height, frame.width, max_pixels=max_pixels)
    # Not a function within this one: its annotations would be evaluated for every file.
    read = partial(_read, data, frame, otherwise)
    return ImageFile(height=frame.height, width=frame.width, channels=frame.channels, read=read)


def _read(data: bytes, frame: _Frame, otherwise: Callable[[], ImageFile], at_least: Size | None) -> NDArray[Any]:
    size = None if at_least is None else _shrunk(frame, at_least)
    pixels = decode_jpeg(data, channels=frame.channels, size=size)
    return otherwise().read(at_least) if pixels is None else pixels


def decode_jpeg(data: bytes, *, channels: int, size: Size | None = None) -> NDArray[Any] | None:
    """Decode a JPEG in grey or colour to (height, width, channels).

    simplejpeg complains of every oddity of a file. Which of them are damages, Pillow decides: there, and without
    simplejpeg, the answer is None.

    Args:
        data: the file.
        channels: 1 or 3, as in the file.
        size: half, a quarter or an eighth of its own, rounded up; None for its own.
    """
    if simplejpeg is None:
        return None
    least = size or (0, 0)
    try:
        return simplejpeg.decode_jpeg(data, _COLOURS[channels], min_height=least[0], min_width=least[1])
    except ValueError as oddity:
        _log.debug("simplejpeg says %s; Pillow is asked", oddity)
        return None


def _shrunk(frame: _Frame, at_least: Size) -> Size | None:
    """The smallest size to decode to that is not below the one asked for, as Pillow's `draft` finds it."""
    for shrink in _SHRINKS:
        if frame.height >= shrink * at_least[0] and frame.width >= shrink * at_least[1]:
            return -(-frame.height // shrink), -(-frame.width // shrink)
    return None


def _frame(data: bytes) -> _Frame | None:
    """Size and channels as the header says; None if anything in it is not ordinary."""
    at = 2  # behind the marker that begins each file
    while at + _FRAME_BYTES <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker in _FRAMES:
            height, width = int.from_bytes(data[at + 5 : at + 7]), int.from_bytes(data[at + 7 : at + 9])
            precision, channels = data[at + 4], data[at + 9]
            ordinary = precision == 8 and channels in _COLOURS and height and width
            return _Frame(height, width, channels) if ordinary else None
        if marker not in _SKIPPED:
            return None
        at += 2 + int.from_bytes(data[at + 2 : at + 4])
    return None
