"""Pictures of any number of channels and any bit depth: NumPy files and TIFF."""

import io
import logging
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from simmim.data.image import ImageFile, Stack, UnreadableImage, check_size, is_turned, unreadable_on_failure
from simmim.data.photo import picture, pillow_rules
from simmim.units import Size

if TYPE_CHECKING:
    import tifffile

# What these complain about reaches a person as the reason why a file cannot be read, not as a line in between.
for _name in ("tifffile", "PIL.TiffImagePlugin"):
    logging.getLogger(_name).setLevel(logging.CRITICAL)

_BITS, _SAMPLES, _PLANAR, _ORIENTATION = 258, 277, 284, 274  # TIFF tags


def array_image(array: NDArray[Any]) -> ImageFile:
    """An array (height, width, channels) as an image."""
    height, width, channels = array.shape
    return ImageFile(height=height, width=width, channels=channels, read=lambda at_least: array)


def open_numpy(source: Path | bytes, *, max_pixels: int) -> ImageFile:
    """A `.npy` file: (H, W), (H, W, C) or (C, H, W); the channels are the shorter of the first and the last axis."""
    # A mapped file tells its shape without being read; pickled objects are refused.
    array = (
        np.load(io.BytesIO(source), allow_pickle=False)
        if isinstance(source, bytes)
        else np.load(source, mmap_mode="r", allow_pickle=False)
    )
    if array.ndim not in (2, 3):
        raise UnreadableImage(f"has the shape {array.shape}; allowed are (H, W), (H, W, C) and (C, H, W)")
    image = array_image(_channels_last(array))
    check_size(image.height, image.width, max_pixels=max_pixels)
    return image


def open_tiff(source: Path | bytes, *, max_pixels: int) -> ImageFile:
    """A TIFF file: the ordinary ones through Pillow, which turns them upright itself, all others through tifffile."""
    stream = io.BytesIO(source if isinstance(source, bytes) else source.read_bytes())
    with pillow_rules():
        try:
            image = Image.open(stream, formats=("TIFF",))
        except UnidentifiedImageError:
            return _open_with_tifffile(stream, max_pixels=max_pixels)
        if not _is_ordinary(image):
            return _open_with_tifffile(stream, max_pixels=max_pixels)
        check_size(image.height, image.width, max_pixels=max_pixels)
    first = picture(image, reopen=lambda: _frame(stream, 0))
    return replace(first, stack=lambda: _frames(stream))


def _frame(stream: io.BytesIO, number: int) -> Image.Image:
    image = Image.open(stream, formats=("TIFF",))
    image.seek(number)
    return image


def _frames(stream: io.BytesIO) -> Stack:
    """The pages of a file whose first one is ordinary."""
    with pillow_rules():
        count = int(getattr(_frame(stream, 0), "n_frames", 1))

    def page(number: int) -> ImageFile:
        with unreadable_on_failure(), pillow_rules():
            image = _frame(stream, number)
            if _is_ordinary(image):
                return picture(image, reopen=lambda: _frame(stream, number))
        return _page(stream, number)

    return Stack(count, page)


def _is_ordinary(image: Image.Image) -> bool:
    tags = cast("dict[int, Any]", image.tag_v2)  # pyright: ignore
    bits, samples = tags.get(_BITS, (1,)), tags.get(_SAMPLES, 1)
    return (
        max(bits) <= 8
        and samples == len(image.getbands())
        and tags.get(_PLANAR, 1) == 1
        and image.mode not in ("F", "RGBX")
    )


def _open_with_tifffile(stream: io.BytesIO, *, max_pixels: int) -> ImageFile:
    import tifffile

    stream.seek(0)
    with tifffile.TiffFile(stream) as file:
        shape, orientation = _tiff_layout(file)
    height, width, channels = shape
    check_size(height, width, max_pixels=max_pixels)

    def read(at_least: Size | None) -> NDArray[Any]:
        stream.seek(0)
        with tifffile.TiffFile(stream) as file:
            return _tiff_array(file)

    upright = (width, height) if is_turned(orientation) else (height, width)
    return ImageFile(height=upright[0], width=upright[1], channels=channels, read=read, orientation=orientation,
                     stack=lambda: _pages(stream))  # fmt: skip


def _pages(stream: io.BytesIO) -> Stack:
    import tifffile

    stream.seek(0)
    with unreadable_on_failure(), tifffile.TiffFile(stream) as file:
        return Stack(len(file.pages), partial(_page, stream))


def _page(stream: io.BytesIO, number: int) -> ImageFile:
    """One page alone, through tifffile."""
    import tifffile

    def array() -> NDArray[Any]:
        stream.seek(0)
        with tifffile.TiffFile(stream) as file:
            part = file.pages[number]
            assert isinstance(part, tifffile.TiffPage)
            return _upright_values(part, part.asarray())

    with unreadable_on_failure():
        stream.seek(0)
        with tifffile.TiffFile(stream) as file:
            part = file.pages[number]
            assert isinstance(part, tifffile.TiffPage)
            (height, width, channels), _ = _layout(part)
    return ImageFile(height=height, width=width, channels=channels, read=lambda at_least: array())


def _tiff_part(file: "tifffile.TiffFile") -> "tifffile.TiffPageSeries | tifffile.TiffPage":
    """The whole first series where its third axis is one of channels, otherwise the first page alone.

    S is tifffile's letter for samples of a pixel, C for channels, Q for an axis of a NumPy array it was not told about.
    Time, depth and plain pages are other pictures, not channels.
    """
    series = file.series[0]
    if len(series.shape) <= 3 and set(series.axes) <= set("YXSCQ"):
        return series
    return file.pages.first


def _channel_axis(part: "tifffile.TiffPageSeries | tifffile.TiffPage") -> int | None:
    if len(part.shape) == 2:
        return None
    if len(part.shape) != 3:
        raise UnreadableImage(f"has the axes {part.axes} with the shape {part.shape}; allowed are two or three axes")
    return next((axis for axis, letter in enumerate(part.axes) if letter in "SC"), _shorter_end(part.shape))


def _tiff_layout(file: "tifffile.TiffFile") -> tuple[tuple[int, int, int], int]:
    size, _ = _layout(_tiff_part(file))
    tag = file.pages.first.tags.get(_ORIENTATION)
    return size, 1 if tag is None else int(tag.value)


def _layout(part: "tifffile.TiffPageSeries | tifffile.TiffPage") -> tuple[tuple[int, int, int], int | None]:
    axis, shape = _channel_axis(part), list(part.shape)
    channels = 1 if axis is None else shape.pop(axis)
    return (shape[0], shape[1], channels), axis


def _tiff_array(file: "tifffile.TiffFile") -> NDArray[Any]:
    part = _tiff_part(file)
    return _upright_values(part, part.asarray(), photometric=file.pages.first.photometric)


def _upright_values(
    part: "tifffile.TiffPageSeries | tifffile.TiffPage", array: NDArray[Any], photometric: int | None = None
) -> NDArray[Any]:
    axis = _channel_axis(part)
    if (
        getattr(part, "photometric", None) if photometric is None else photometric
    ) == 0 and array.dtype.kind == "u":  # zero is white
        array = np.iinfo(array.dtype).max - array
    return array[:, :, None] if axis is None else np.moveaxis(array, axis, 2)


def _shorter_end(shape: tuple[int, ...]) -> int:
    return 0 if shape[0] < shape[-1] else 2


def _channels_last(array: NDArray[Any]) -> NDArray[Any]:
    return array[:, :, None] if array.ndim == 2 else np.moveaxis(array, _shorter_end(array.shape), 2)
