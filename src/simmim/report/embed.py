"""Pictures of a run taken apart and packed into a page: what never changes once, what changes a step at a time."""

import base64
import io
from collections.abc import Sequence
from typing import NamedTuple

from PIL import Image

from simmim.report.facts import StepPicture
from simmim.report.pictures import take_apart

MOST_STEPS, MOST_ROWS = 20, 8
_LONGEST_SIDE = 224
_QUALITY, _METHOD = 50, 6  # of twenty pictures of eight photographs a page has about a megabyte


class Sight(NamedTuple):
    """One fixed image: original and masked, and what was predicted behind each step; all as data URIs."""

    fixed: Sequence[str]
    predicted: Sequence[str]


class Gallery(NamedTuple):
    """The fixed images of a run over its steps."""

    steps: Sequence[int]
    sights: Sequence[Sight]


def pack_pictures(pictures: Sequence[StepPicture], image_size: tuple[int, int] | None) -> Gallery:
    """Pack the pictures of a run, at most twenty of them, spread evenly; the newest is among them.

    A picture that `draw_rows` did not draw in this way is shown whole.
    """
    chosen = _spread(pictures)
    taken = [_rows_of(picture, image_size) for picture in chosen]
    same = len({len(rows) for rows in taken}) == 1
    if not chosen or not same:
        return Gallery((), ())
    sights = [
        Sight([pack(panel) for panel in rows[-1][:-1]], [pack(of_step[-1]) for of_step in rows])
        for rows in zip(*taken, strict=True)
    ]
    return Gallery([picture.step for picture in chosen], sights[:MOST_ROWS])


def _spread(pictures: Sequence[StepPicture]) -> list[StepPicture]:
    if len(pictures) <= MOST_STEPS:
        return list(pictures)
    return [pictures[round(number * (len(pictures) - 1) / (MOST_STEPS - 1))] for number in range(MOST_STEPS)]


def _rows_of(picture: StepPicture, image_size: tuple[int, int] | None) -> list[list[Image.Image]]:
    with Image.open(picture.path) as image:
        whole = image.convert("RGB")
    return (take_apart(whole, image_size) if image_size else []) or [[whole]]


def pack(image: Image.Image, *, longest: int = _LONGEST_SIDE) -> str:
    """An image as a data URI, made smaller where it is large."""
    if max(image.size) > longest and image.size[0] < 4 * longest:
        image = image.copy()
        image.thumbnail((longest, longest), Image.Resampling.LANCZOS)
    packed = io.BytesIO()
    image.save(packed, format="WEBP", quality=_QUALITY, method=_METHOD)
    return "data:image/webp;base64," + base64.b64encode(packed.getvalue()).decode("ascii")
