"""From labels as they are written to class numbers."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_MOST_CLASSES = 10_000_000  # a larger "label" is an identifier of something else


def numbered(written: Sequence[str], *, where: object) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Class numbers and class names: whole numbers as they are, all else as names, numbered in sorted order.

    Raises `ValueError` where a number is too large for a class; `where` names the data set.
    """
    if all(label.isdecimal() for label in written):
        labels = np.array([int(label) for label in written], dtype=np.int64)
        if labels.max() > _MOST_CLASSES:
            raise ValueError(f"{where}: the label {labels.max()} is too large for a class number, which count from 0")
        return labels, tuple(map(str, range(int(labels.max()) + 1)))
    names, labels = np.unique(np.array(written), return_inverse=True)
    return labels.astype(np.int64), tuple(map(str, names))


def folders_as_labels(paths: Sequence[str]) -> Sequence[str] | None:
    """The folder of each path below the folders that all of them share; None where a path has no such folder."""
    parts = [path.split("/")[:-1] for path in paths]
    shared = 0
    while all(len(each) > shared + 1 for each in parts) and len({each[shared] for each in parts}) == 1:
        shared += 1
    return [each[shared] for each in parts] if all(len(each) > shared for each in parts) else None
