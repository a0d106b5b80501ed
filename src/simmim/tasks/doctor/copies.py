"""Copies among images: the same pixels, and pictures that a difference hash cannot tell apart."""

import numpy as np
from numpy.typing import NDArray

from simmim.tasks.doctor.sample import Look

_FEW_BITS = 6  # of 144
_ALIKE = 0.03  # mean difference of two thumbnails, by the spread of the first


def exact_copies(looks: list[Look]) -> list[tuple[str, str]]:
    """Pairs of images with the same pixels: each copy with the first of its kind; images of one value are left out."""
    first, pairs = dict[bytes, str](), list[tuple[str, str]]()
    for look in (look for look in looks if look.spread > 0):
        known = first.setdefault(look.digest, look.name)
        if known != look.name:
            pairs.append((known, look.name))
    return pairs


def near_copies(looks: list[Look]) -> list[tuple[str, str]]:
    """Pairs of images that differ in at most 6 of 144 signs between neighbours of a 9 x 9 thumbnail, and hardly in it.

    Each image is named once, with the first that it resembles; exact copies and images without contrast are left out.
    """
    looks = [look for look in {look.digest: look for look in looks}.values() if look.spread > 0.02]
    if len(looks) < 2:
        return []
    thumbnails = np.stack([look.thumbnail for look in looks])
    signs = _signs(thumbnails)
    pairs = list[tuple[str, str]]()
    for number in range(1, len(looks)):
        differing = (signs[:number] != signs[number]).sum(axis=1)
        away = np.abs(thumbnails[:number] - thumbnails[number]).mean(axis=(1, 2))
        alike = (differing <= _FEW_BITS) & (away <= _ALIKE * np.ptp(thumbnails[number]))
        if alike.any():
            pairs.append((looks[int(alike.argmax())].name, looks[number].name))
    return pairs


def _signs(thumbnails: NDArray[np.float32]) -> NDArray[np.bool_]:
    across = np.diff(thumbnails, axis=2) > 0
    down = np.diff(thumbnails, axis=1) > 0
    return np.concatenate([across.reshape(len(thumbnails), -1), down.reshape(len(thumbnails), -1)], axis=1)
