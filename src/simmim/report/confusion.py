"""The picture of what a classifier takes for what."""

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

_LARGEST_CELL, _SIDE = 40, 900
_NAMED = 40  # with more classes there is no room for their names
_WRITTEN = 24  # pixels a side from which a share is written into its cell
_PAPER, _INK, _FULL = (255, 255, 255), (40, 40, 40), (12, 44, 110)
_MARGIN, _TITLE = 12, 22
_Font: TypeAlias = ImageFont.FreeTypeFont | ImageFont.ImageFont


def draw_confusion(confusion: NDArray[np.int64], classes: Sequence[str], *, note: str = "") -> Image.Image:
    """Each true class (row) as each named class (column), the darker the larger its share of the row.

    Args:
        confusion: counts (classes, classes).
        classes: their names, written where there is room.
        note: a line at the foot.
    """
    count = len(classes)
    cell = max(1, min(_LARGEST_CELL, _SIDE // count))
    font = ImageFont.load_default(size=12)
    names = [_short(name) for name in classes] if count <= _NAMED else []
    room = max((int(font.getlength(name)) for name in names), default=0) + 6 if names else 0
    left, top = _MARGIN + _TITLE + room, _MARGIN + _TITLE + room
    side = cell * count
    width = max(left + side + _MARGIN, _MARGIN * 2 + int(font.getlength(note)))
    canvas = Image.new("RGB", (width, top + side + _TITLE + _MARGIN), _PAPER)
    draw = ImageDraw.Draw(canvas)
    shares = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    canvas.paste(_shaded(shares).resize((side, side), Image.Resampling.NEAREST), (left, top))
    draw.rectangle((left - 1, top - 1, left + side, top + side), outline=_INK)
    draw.text((left, _MARGIN), "named as", fill=_INK, font=font)
    _sideways(canvas, "true class", font, left=_MARGIN, bottom=top + int(font.getlength("true class")))
    for number, name in enumerate(names):
        middle = top + number * cell + cell // 2
        draw.text((left - 5, middle), name, fill=_INK, font=font, anchor="rm")
        _sideways(canvas, name, font, left=left + number * cell + (cell - 14) // 2, bottom=top - 4)
    if cell >= _WRITTEN:
        _write_shares(draw, shares, left=left, top=top, cell=cell)
    draw.text((_MARGIN, top + side + 6), note, fill=_INK, font=font)
    return canvas


def _short(name: str) -> str:
    return name if len(name) <= 18 else f"{name[:17]}…"


def _shaded(shares: NDArray[np.float64]) -> Image.Image:
    """From paper to full colour; the root lets small confusions be seen."""
    strength = np.sqrt(shares)[:, :, None]
    colours = (1 - strength) * np.array(_PAPER) + strength * np.array(_FULL)
    return Image.fromarray(np.rint(colours).astype(np.uint8))


def _sideways(canvas: Image.Image, text: str, font: _Font, *, left: int, bottom: int) -> None:
    """Write from below upwards."""
    strip = Image.new("RGB", (int(font.getlength(text)) + 2, 16), _PAPER)
    ImageDraw.Draw(strip).text((0, 0), text, fill=_INK, font=font)
    turned = strip.rotate(90, expand=True)
    canvas.paste(turned, (left, bottom - turned.height))


def _write_shares(draw: ImageDraw.ImageDraw, shares: NDArray[np.float64], *, left: int, top: int, cell: int) -> None:
    font = ImageFont.load_default(size=10)
    for row, column in zip(*np.nonzero(shares), strict=True):
        share = float(shares[row, column])
        place = (left + int(column) * cell + cell // 2, top + int(row) * cell + cell // 2)
        draw.text(place, f"{100 * share:.0f}", fill=_PAPER if share > 0.25 else _INK, font=font, anchor="mm")
