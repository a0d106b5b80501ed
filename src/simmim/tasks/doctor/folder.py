"""What names say: kinds of pictures nobody opens here, and images that lie in a file for each band."""

import os
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path, PurePath

from simmim.data import SUFFIXES

_PICTURES = frozenset(
    (".heic", ".heif", ".avif", ".jp2", ".j2k", ".jxl", ".psd", ".exr", ".hdr", ".svg", ".eps", ".pgm", ".ppm", ".tga")
) | {".dng", ".cr2", ".cr3", ".nef", ".arw", ".dcm"}


def pictures_left_out(root: Path) -> dict[str, int]:
    """Suffixes of pictures below a folder that simmim does not open, and how many files have them."""
    found = Counter[str]()
    for _, folders, files in os.walk(root):
        folders[:] = [folder for folder in folders if not folder.startswith(".")]
        found.update(os.path.splitext(name)[1].lower() for name in files if not name.startswith("."))
    return {suffix: count for suffix, count in found.most_common() if suffix in _PICTURES - SUFFIXES}


_BAND = re.compile(
    r"(.+?)([_.-](?:b\d{1,2}a?|(?:band|channel|ch)[_-]?\d{1,3}|red|green|blue|nir|swir\d?|rededge\d?|pan)\.\w+)",
    re.IGNORECASE,
)
_COMPLETE = 0.9
"""Share of the images that have every band."""


def bands_of(names: Iterable[str]) -> tuple[str, ...]:
    """The ends of file names that look like bands of the same images, as data.bands takes them; none where they do not.

    Args:
        names: all names, or many that stand together in order.
    """
    images: dict[str, set[str]] = {}
    for name in names:
        found = _BAND.fullmatch(PurePath(name).name)
        if found is None:
            return ()
        images.setdefault(str(PurePath(name).with_name(found[1])), set()).add(found[2])
    ends = sorted(set[str]().union(*images.values()), key=_by_number)
    whole = sum(len(of) == len(ends) for of in images.values())
    return tuple(ends) if len(ends) > 1 and whole > 1 and whole >= _COMPLETE * len(images) else ()


def _by_number(end: str) -> tuple[int, str]:
    number = re.search(r"\d+", end)
    return int(number[0]) if number else 0, end
