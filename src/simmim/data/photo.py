"""Ordinary pictures through Pillow: JPEG, PNG, WebP, BMP, GIF."""

import io
import logging
import struct
import warnings
from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL import ImageFile as PillowFile

from simmim.data.image import ImageFile, check_size, is_turned
from simmim.data.jpeg import decode_jpeg, open_plain_jpeg
from simmim.units import Size

_log = logging.getLogger(__name__)

_ORIENTATION_TAG = 0x0112

# What a picture of a mode becomes. Everything else (CMYK, YCbCr, LAB, HSV) is a way to write colour.
_MODES = {"1": "L", "L": "L", "LA": "LA", "La": "LA", "RGBA": "RGBA", "RGBa": "RGBA", "PA": "RGBA"}
_CHANNELS = {"L": 1, "LA": 2, "RGB": 3, "RGBA": 4}


@contextmanager
def pillow_rules() -> Generator[None]:
    """Our rules in place of Pillow's global ones: no warnings, our own pixel limit, truncated files are errors."""
    limit, lenient = Image.MAX_IMAGE_PIXELS, PillowFile.LOAD_TRUNCATED_IMAGES
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        Image.MAX_IMAGE_PIXELS, PillowFile.LOAD_TRUNCATED_IMAGES = None, False
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS, PillowFile.LOAD_TRUNCATED_IMAGES = limit, lenient


def open_photo(data: bytes, *, kind: str, max_pixels: int) -> ImageFile:
    """Read the header of a picture of a Pillow format such as "JPEG"."""
    by_pillow = partial(_open_by_pillow, data, kind=kind, max_pixels=max_pixels)
    plain = open_plain_jpeg(data, max_pixels=max_pixels, otherwise=by_pillow) if kind == "JPEG" else None
    return by_pillow(quick=True) if plain is None else plain


def _open_by_pillow(data: bytes, *, kind: str, max_pixels: int, quick: bool = False) -> ImageFile:
    def reopen() -> Image.Image:
        return Image.open(io.BytesIO(data), formats=(kind,))

    with pillow_rules():
        image = reopen()
        check_size(image.height, image.width, max_pixels=max_pixels)
        orientation = _orientation(image, data)
    if kind == "PNG" and data[24] == 16:
        return _deep_png(data, image, orientation)
    decode = None
    if quick and kind == "JPEG" and (channels := {"L": 1, "RGB": 3}.get(image.mode)):
        decode = partial(decode_jpeg, data, channels=channels)
    return picture(image, reopen=reopen, orientation=orientation, decode=decode)


def picture(
    image: Image.Image,
    *,
    reopen: Callable[[], Image.Image],
    orientation: int = 1,
    decode: Callable[[], NDArray[Any] | None] | None = None,
) -> ImageFile:
    """Wrap an opened Pillow image, which serves the first decoding; later ones open it again.

    Args:
        image: the picture, its header read.
        reopen: opens it again.
        orientation: the EXIF number that says how to turn it.
        decode: a quicker way to all of its pixels, or None from it where Pillow has to be asked.
    """
    mode = _MODES.get(image.mode, "RGB")
    if image.mode == "P" and image.has_transparency_data:
        mode = "RGBA"
    opened = [image]

    def read(at_least: Size | None) -> NDArray[Any]:
        with pillow_rules():
            image = opened.pop() if opened else reopen()
            stored = image.size
            if at_least:
                image.draft(None, (at_least[1], at_least[0]))
            if decode is not None and image.size == stored and (quick := decode()) is not None:
                return quick
            array = np.array(image if image.mode == mode else image.convert(mode))
        return array.reshape(*array.shape[:2], -1)

    height, width = (image.width, image.height) if is_turned(orientation) else (image.height, image.width)
    channels, alpha = _CHANNELS[mode], mode.endswith("A")
    return ImageFile(height=height, width=width, channels=channels, read=read, orientation=orientation, alpha=alpha)


def _orientation(image: Image.Image, data: bytes) -> int:
    if image.format == "PNG" and b"eXIf" in data:
        image.load()  # the chunk may stand behind the pixels
    try:
        # The method of the plain image: the one of PNG files would decode every picture in search of the tag.
        return int(Image.Image.getexif(image).get(_ORIENTATION_TAG, 1))
    except (SyntaxError, ValueError, TypeError, KeyError, OSError, struct.error) as error:
        _log.debug("broken EXIF data, the picture is taken as upright: %s", error)
        return 1


def _deep_png(data: bytes, image: Image.Image, orientation: int) -> ImageFile:
    """16 bits a channel, which Pillow would cut to 8 for colour."""
    channels = {0: 1, 2: 3, 4: 2, 6: 4}[data[25]]

    def read(at_least: Size | None) -> NDArray[Any]:
        import imagecodecs

        array = imagecodecs.png_decode(data)
        return array.reshape(*array.shape[:2], -1)[:, :, :channels]

    height, width = (image.width, image.height) if is_turned(orientation) else (image.height, image.width)
    alpha = channels in (2, 4)
    return ImageFile(height=height, width=width, channels=channels, read=read, orientation=orientation, alpha=alpha)
