"""Where images come from: a built-in name, a folder or a list file, all under one contract."""

from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from simmim.config import nearest
from simmim.data.digits import open_digits
from simmim.data.folder import open_folder, splits_in, splits_of_folder
from simmim.data.image import ImageFile
from simmim.data.listing import LIST_SUFFIXES, open_listing

_BUILT_IN = ("digits",)
_ALLOWED = f"allowed: a folder of images, a list file ({', '.join(LIST_SUFFIXES)}), or the built-in set {_BUILT_IN[0]}"


@runtime_checkable
class Source(Protocol):
    """A fixed list of images that can be opened in any order. It pickles cheaply and holds no open file."""

    @property
    def labels(self) -> NDArray[np.int64] | None:
        """The class number of each image, or None."""
        ...

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes, by class number; empty without labels."""
        ...

    @property
    def fingerprint(self) -> str:
        """A digest that changes when the set changes."""
        ...

    @property
    def problems(self) -> dict[str, str]:
        """Files found bad already while indexing, path to reason; they are not among the images."""
        ...

    @property
    def listed(self) -> int:
        """How many files the set has, bad ones included; of a part of a set, that of the whole."""
        ...

    def __len__(self) -> int: ...

    def name(self, index: int) -> str:
        """The path as a person sees it."""
        ...

    def open(self, index: int, *, max_pixels: int = ...) -> ImageFile:
        """Read the header of one image; raises `UnreadableImage`."""
        ...


def open_source(data: str | Path, *, split: str | None = None, labelled: bool = False) -> Source:
    """Open a data set of any kind; the kind is recognised.

    `split` ("train", "val", "test") chooses one of a folder's parts if it holds such sub-folders: val is also found as
    valid, validation or test. Without it a folder is taken whole. A built-in name comes before a folder of that name,
    which can be reached as ./digits.

    Raises `ValueError` if there is nothing of that name, nothing in it, or no labels where they are asked for.
    """
    if str(data) in _BUILT_IN:
        return open_digits(split)
    path = Path(data).expanduser()
    if path.is_dir():
        return open_folder(_part(path, split), labelled=labelled)
    if not path.exists():
        raise ValueError(f"{data} is not there{_neighbour(path)}; {_ALLOWED}")
    if path.suffix.lower() not in LIST_SUFFIXES:
        raise ValueError(f"{data} is a file of the kind {path.suffix or 'without a suffix'}; {_ALLOWED}")
    if split is not None:
        raise ValueError(f"{data} is a list file and has no split {split!r}; give each split a list of its own")
    return open_listing(path, labelled=labelled)


def splits_of(data: str | Path) -> tuple[str, ...]:
    """The splits that `open_source` can choose from, such as ("train", "val"); empty if the set is one piece."""
    if str(data) in _BUILT_IN:
        return "train", "val", "test"
    return splits_of_folder(Path(data).expanduser())


def _part(root: Path, split: str | None) -> Path:
    if split is None:
        return root
    splits = splits_in(root)
    if not splits:
        raise ValueError(f"{root} is not divided into splits; expected sub-folders such as {root}/train and {root}/val")
    if split not in splits:
        raise ValueError(f"{root} has no split {split!r}; allowed: {', '.join(splits)}{nearest(split, list(splits))}")
    return splits[split]


def _neighbour(path: Path) -> str:
    if not path.parent.is_dir():
        return ""
    return nearest(path.name, sorted(sibling.name for sibling in path.parent.iterdir()))
