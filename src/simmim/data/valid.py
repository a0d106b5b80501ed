"""Which pixels of an image are a picture at all: not a black border, not no-data, not transparent."""

from typing import Annotated, Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy.ndimage import label  # pyright: ignore[reportUnknownVariableType]
from torch import Tensor

from simmim.data.image import ImageFile, oriented, tensor_of, unreadable_on_failure
from simmim.units import Size

Invalid: TypeAlias = Annotated[
    Literal["black", "alpha", "nan"] | Annotated[float, Field(allow_inf_nan=False)], Field(union_mode="left_to_right")
]
"""What marks a pixel as empty: a black area at the border, transparency, NaN, or a value as it stands in the file."""

_NEARLY_BLACK = 8 / 255  # a JPEG leaves noise in a black border


def pixels_and_valid(image: ImageFile, at_least: Size | None, *, invalid: Invalid) -> tuple[Tensor, Tensor]:
    """Decode as `ImageFile.pixels` does, and say which pixels are valid (height, width); the others are set to zero.

    Raises `UnreadableImage` when the file is damaged, or holds values that are not finite and not marked as empty.
    """
    with unreadable_on_failure():
        array = image.read(image.stored(at_least))
        valid = find_valid(array, invalid=invalid, alpha=image.alpha)
        pixels = tensor_of(np.where(valid[:, :, None], array, array.dtype.type(0)))
        marks = tensor_of(valid[:, :, None])
    return oriented(pixels, image.orientation), oriented(marks, image.orientation)[0] > 0


def find_valid(array: NDArray[Any], *, invalid: Invalid, alpha: bool) -> NDArray[np.bool_]:
    """Which pixels of (height, width, channels) are valid.

    - "black": all but the black areas that touch the border; up to 8 of 255 is black in integers of 8 and 16 bits, all
      else exactly 0.
    - "alpha": those that are not wholly transparent; all, where there is no transparency.
    - "nan": those without NaN in any channel.
    - a number: those that have another value in some channel, transparency aside.
    """
    colours = array[:, :, :-1] if alpha else array
    if invalid == "alpha":
        return array[:, :, -1] > 0 if alpha else np.ones(array.shape[:2], dtype=np.bool_)
    if invalid == "nan":
        return np.logical_not(np.isnan(colours).any(axis=2))
    if invalid == "black":
        return ~_at_the_border(_is_black(colours))
    return (colours != colours.dtype.type(invalid)).any(axis=2) if _holds(colours, float(invalid)) else _all(array)


def _all(array: NDArray[Any]) -> NDArray[np.bool_]:
    return np.ones(array.shape[:2], dtype=np.bool_)


def _holds(array: NDArray[Any], value: float) -> bool:
    """Whether the number type can hold the value at all: -9999 is in no image of 8 bits."""
    if array.dtype.kind == "f":
        return True
    low, high = (0, 1) if array.dtype.kind == "b" else (np.iinfo(array.dtype).min, np.iinfo(array.dtype).max)
    return value == int(value) and low <= value <= high


def _is_black(colours: NDArray[Any]) -> NDArray[np.bool_]:
    whole = colours.dtype.kind == "u" and colours.dtype.itemsize <= 2
    most = np.iinfo(colours.dtype).max * _NEARLY_BLACK if whole else 0
    return np.all((colours >= 0) & (colours <= most), axis=2)


def _at_the_border(black: NDArray[np.bool_]) -> NDArray[np.bool_]:
    edge = np.ones_like(black)
    edge[1:-1, 1:-1] = False
    if not (black & edge).any():
        return np.zeros_like(black)
    areas: NDArray[np.int32] = label(black)[0]  # pyright: ignore
    return black & np.isin(areas, np.unique(areas[black & edge]))
