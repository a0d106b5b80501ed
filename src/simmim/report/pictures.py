"""Pictures of what a model sees and says, drawn pixel for pixel."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

_GAP = 8
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
    """Lay rows of panels out under their titles, with a note at the foot."""
    height, width = rows[0].panels[0].shape[1:]
    scale = max(1, -(-_SMALLEST_SIDE // min(height, width)))
    cell_height, cell_width = height * scale, width * scale
    foot = _TITLE_HEIGHT if note else 0
    canvas = Image.new(
        "RGB",
        (
            _GAP + len(titles) * (cell_width + _GAP),
            _TITLE_HEIGHT + len(rows) * (cell_height + _GAP) + foot,
        ),
        _PAPER,
    )
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(size=14)
    for column, title in enumerate(titles):
        draw.text((_GAP + column * (cell_width + _GAP), 5), title, fill=_INK, font=font)
    for row_number, row in enumerate(rows):
        for column, panel in enumerate(row.panels):
            place = (_GAP + column * (cell_width + _GAP), _TITLE_HEIGHT + row_number * (cell_height + _GAP))
            canvas.paste(_to_image(panel).resize((cell_width, cell_height), Image.Resampling.NEAREST), place)
    draw.text((_GAP, canvas.height - _TITLE_HEIGHT + 4), note, fill=_INK, font=font)
    return canvas


def _to_image(panel: Tensor) -> Image.Image:
    pixels = (panel.detach().cpu().float().clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    return Image.fromarray(np.ascontiguousarray(pixels))
