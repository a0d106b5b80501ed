"""A source of image files: many paths held compactly, with labels or without."""

import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import overload

import numpy as np
from numpy.typing import NDArray

from simmim.data.decode import open_image
from simmim.data.image import MAX_PIXELS, ImageFile


class Paths(Sequence[str]):
    """A list of paths as one block of bytes, so that a million of them travel to a loader worker at once."""

    def __init__(self, paths: Iterable[str]) -> None:
        encoded = [os.fsencode(path) for path in paths]
        self._text = b"".join(encoded)
        self._ends = np.cumsum([len(path) for path in encoded], dtype=np.int64)

    def __len__(self) -> int:
        return len(self._ends)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        index = range(len(self))[index]
        start = int(self._ends[index - 1]) if index else 0
        return os.fsdecode(self._text[start : int(self._ends[index])])

    def digest(self) -> bytes:
        """A digest of all paths and their order."""
        return hashlib.blake2b(self._text + self._ends.tobytes(), digest_size=16).digest()


@dataclass(frozen=True, kw_only=True)
class Files:
    """Image files below `root`, a source (see `simmim.data.source.Source`).

    The fingerprint depends on the names, their order and their labels: a set that was moved is the same set, and a file
    whose content was replaced is not noticed.
    """

    root: Path
    paths: Paths
    labels: NDArray[np.int64] | None = None
    classes: tuple[str, ...] = ()
    problems: dict[str, str] = field(default_factory=dict[str, str])

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def listed(self) -> int:
        """How many files the set has, bad ones included."""
        return len(self.paths) + len(self.problems)

    def name(self, index: int) -> str:
        """The path as a person sees it."""
        return str(self.root / self.paths[index])

    def open(self, index: int, *, max_pixels: int = MAX_PIXELS) -> ImageFile:
        """Read the header of one image; raises `UnreadableImage`."""
        return open_image(os.path.join(self.root, self.paths[index]), max_pixels=max_pixels)

    @property
    def fingerprint(self) -> str:
        """A digest that changes when the set changes."""
        labels = b"" if self.labels is None else self.labels.tobytes()
        text = self.paths.digest() + labels + repr(self.classes).encode()
        return hashlib.blake2b(text, digest_size=16).hexdigest()


def fault_of(path: str) -> str | None:
    """Why a path is certainly no image, as far as the file system tells; None where it may be one."""
    try:
        size = os.stat(path).st_size
    except FileNotFoundError:
        return "is a broken link" if os.path.islink(path) else "is not there"
    except OSError as error:
        return f"cannot be opened: {error.strerror}"
    return None if size else "is empty"
