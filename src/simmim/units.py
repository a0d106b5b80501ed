"""Quantities with their units: "100 epochs", "32 px", "2048 images".

A recipe writes the unit, the code works with plain numbers: every type here reads the written form, checks it, and writes
it back when a recipe is saved.
"""

import math
import re
from collections.abc import Callable
from typing import Annotated, Any, Literal, TypeAlias, cast

from pydantic import BaseModel, BeforeValidator, ConfigDict, PlainSerializer, model_serializer, model_validator

_QUANTITY = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)\s*([A-Za-z%]+(?: [a-z]+)*)?\s*")
_SIZE = re.compile(r"\s*(\d+)\s*[x×]\s*(\d+)\s*(?:px)?\s*")


def _split(text: str, units: str) -> tuple[float, str | None]:
    match = _QUANTITY.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not a quantity; write a number and its unit, such as {units!r}")
    return float(match[1]), match[2]


def _whole(unit: str, example: str) -> Callable[[Any], Any]:
    def read(value: Any) -> Any:
        if not isinstance(value, str):
            return value
        number, written = _split(value, example)
        if written not in (unit, unit.removesuffix("s"), None):
            raise ValueError(f"{value!r} has the unit {written!r}; this setting counts {unit}, such as {example!r}")
        if number != int(number):
            raise ValueError(f"{value!r} is not a whole number of {unit}; nearest: {round(number)} {unit}")
        return int(number)

    return read


def _size(value: Any) -> Any:
    if isinstance(value, str) and (match := _SIZE.fullmatch(value)):
        return int(match[1]), int(match[2])
    if isinstance(value, str | int) and not isinstance(value, bool):
        side = _whole("px", "192 px")(value)
        return side, side
    return tuple(cast("list[int]", value)) if isinstance(value, list) else value


def read_size(text: str) -> tuple[int, int]:
    """Height and width in pixels of "224", "224 px" or "96x160".

    Raises:
        ValueError: where it is neither.
    """
    height, width = _size(text)
    return height, width


def _write_size(size: tuple[int, int]) -> str:
    height, width = size
    return f"{height} px" if height == width else f"{height}x{width} px"


Size: TypeAlias = tuple[int, int]
"""Height and width, in pixels or in cells."""

Pixels = Annotated[int, BeforeValidator(_whole("px", "32 px")), PlainSerializer(lambda n: f"{n} px", return_type=str)]
"""A length in pixels, written "32 px"."""

ImageCount = Annotated[
    int, BeforeValidator(_whole("images", "2048 images")), PlainSerializer(lambda n: f"{n} images", return_type=str)
]
"""A number of images, written "2048 images"."""

ImageSize = Annotated[tuple[int, int], BeforeValidator(_size), PlainSerializer(_write_size, return_type=str)]
"""Height and width of an image, written "192 px", "96x160 px" or [96, 160]."""


class _Quantity(BaseModel):
    """A number and the unit it is counted in, written as one word pair."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    @model_serializer
    def _write(self) -> str:
        return str(self)


def _read_quantity(value: Any, units: tuple[str, ...], example: str) -> Any:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return value
    number, unit = _split(str(value), example)
    known = {word: full for full in units for word in (full, full.removesuffix("s"))}
    if unit not in known:
        said = "no unit" if unit is None else f"the unit {unit!r}"
        raise ValueError(f"{str(value)!r} has {said}; allowed: {', '.join(units)}, such as {example!r}")
    return {"amount": number, "unit": known[unit]}


def _number(amount: float) -> str:
    """The number as it was written: no digit is lost."""
    return str(int(amount)) if amount == int(amount) else repr(amount)


class Duration(_Quantity):
    """A stretch of training, written "100 epochs" or "500 steps"."""

    amount: float
    unit: Literal["epochs", "steps"]

    @model_validator(mode="before")
    @classmethod
    def _read(cls, value: Any) -> Any:
        return _read_quantity(value, ("epochs", "steps"), "100 epochs")

    def __str__(self) -> str:
        return f"{_number(self.amount)} {self.unit}"

    def steps(self, steps_per_epoch: int) -> int:
        """The stretch as a whole number of optimizer steps."""
        return round(self.amount * (steps_per_epoch if self.unit == "epochs" else 1))


class LabelShare(_Quantity):
    """How much of a labelled set is used for training, written "10 per class" or "1 %"."""

    amount: float
    unit: Literal["per class", "%"]

    @model_validator(mode="before")
    @classmethod
    def _read(cls, value: Any) -> Any:
        return _read_quantity(value, ("per class", "%"), "10 per class")

    def __str__(self) -> str:
        return f"{_number(self.amount)} {self.unit}"


class SizeMisfit(ValueError):  # noqa: N818 - it names what is wrong
    """An image size that is not a multiple of something; `of` says of what."""

    def __init__(self, message: str, *, of: int) -> None:
        super().__init__(message)
        self.of = of


def check_multiple(image_size: Size, of: int, what: str, *, also: int = 1) -> None:
    """Refuse an image size that is not a multiple of a length.

    Args:
        image_size: height and width in pixels.
        of: the length, in pixels.
        what: its name, as a person knows it.
        also: another length that sizes must be multiples of; what is suggested fits both.

    Raises:
        SizeMisfit: with the arithmetic and the nearest that fits.
    """
    for side, pixels in zip(("height", "width"), image_size, strict=True):
        if pixels % of:
            raise SizeMisfit(
                f"the image {side} {pixels} px is not a multiple of {what} {of} px; "
                f"nearest: {nearest_multiples(pixels, of=math.lcm(of, also))}",
                of=of,
            )


def nearest_multiples(number: int, *, of: int) -> str:
    """The positive multiples of `of` on both sides of a number, for an error message: "192 or 224"."""
    below = number // of * of
    return f"{below} or {below + of}" if below > 0 else f"{below + of}"
