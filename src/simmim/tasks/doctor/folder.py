"""What a folder holds beside the images that can be read: kinds of pictures nobody opens here."""

import os
from collections import Counter
from pathlib import Path

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
