"""Pictures of what a model sees and says, drawn pixel for pixel."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

_GAP = 8
_MOST_ROWS = 4  # below each other; more are laid out side by side
_TITLE_HEIGHT = 26
_SMALLEST_SIDE = 144  # a smaller image is shown larger, by whole pixels
_PAPER, _INK = (255, 255, 255), (40, 40, 40)


class Row(NamedTuple):
    """One image, shown several ways: each (3, height, width), 0 to 1."""

    panels: Sequence[Tensor]


def to_rgb(images: Tensor, *, low: Tensor, high: Tensor) -> Tensor:
    """Images of any number of channels as colours.

    Args:
        images: (batch, channels, height, width) in the data's own scale.
        low: value shown black, one an image and channel (batch, channels).
        high: value shown white.

    Returns:
        (batch, 3, height, width), 0 to 1. One channel is shown grey, two as red and green, of more the first three.
    """
    scaled = (images - low[:, :, None, None]) / (high - low).clamp_min(1e-12)[:, :, None, None]
    scaled = scaled.clamp(0, 1)
    channels = scaled.shape[1]
    if channels == 1:
        return scaled.expand(-1, 3, -1, -1)
    if channels == 2:
        return torch.cat((scaled, torch.zeros_like(scaled[:, :1])), dim=1)
    return scaled[:, :3]


def draw_rows(rows: Sequence[Row], *, titles: Sequence[str], note: str = "") -> Image.Image:
    """Lay rows of panels out under their titles, at most four below each other, with a note at the foot."""
    height, width = rows[0].panels[0].shape[1:]
    scale = max(1, -(-_SMALLEST_SIDE // min(height, width)))
    cell = (width * scale, height * scale)
    groups = -(-len(rows) // _MOST_ROWS)
    deep = -(-len(rows) // groups)
    step_x, step_y = cell[0] + _GAP, cell[1] + _GAP
    group_width = len(titles) * step_x + 2 * _GAP
    size = (groups * group_width - _GAP, _TITLE_HEIGHT + deep * step_y + (_TITLE_HEIGHT if note else 0))
    canvas = Image.new("RGB", size, _PAPER)
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(size=14)
    for number, row in enumerate(rows):
        group, place = divmod(number, deep)
        for column, (title, panel) in enumerate(zip(titles, row.panels, strict=True)):
            left = _GAP + group * group_width + column * step_x
            if place == 0:
                draw.text((left, 5), title, fill=_INK, font=font)
            canvas.paste(
                _to_image(panel).resize(cell, Image.Resampling.NEAREST), (left, _TITLE_HEIGHT + place * step_y)
            )
    draw.text((_GAP, canvas.height - _TITLE_HEIGHT + 4), note, fill=_INK, font=font)
    return canvas


def take_apart(picture: Image.Image, image_size: tuple[int, int]) -> list[list[Image.Image]]:
    """The panels that `draw_rows` laid out in three columns, one list a row, each in its own size.

    Args:
        picture: what `draw_rows` made, with a note.
        image_size: height and width of a panel's image.

    Returns:
        The rows; none where the picture was laid out in another way.
    """
    height, width = image_size
    scale = max(1, -(-_SMALLEST_SIDE // min(height, width)))
    step_x, step_y = width * scale + _GAP, height * scale + _GAP
    group_width = 3 * step_x + 2 * _GAP
    groups, rest_x = divmod(picture.width + _GAP, group_width)
    deep, rest_y = divmod(picture.height - 2 * _TITLE_HEIGHT, step_y)
    if rest_x or rest_y or groups < 1 or deep < 1:
        return []
    rows: list[list[Image.Image]] = []
    for place in range(groups * deep):
        left, top = _GAP + place // deep * group_width, _TITLE_HEIGHT + place % deep * step_y
        boxes = [(left + n * step_x, top, left + (n + 1) * step_x - _GAP, top + step_y - _GAP) for n in range(3)]
        panels = [picture.crop(box).resize((width, height), Image.Resampling.NEAREST) for box in boxes]
        if any(panel.getextrema() != tuple((ink, ink) for ink in _PAPER) for panel in panels):
            rows.append(panels)
    return rows


def _to_image(panel: Tensor) -> Image.Image:
    pixels = (panel.detach().cpu().float().clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    return Image.fromarray(np.ascontiguousarray(pixels))
