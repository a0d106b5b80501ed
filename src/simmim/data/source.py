"""Where images come from: a built-in name, a folder, a list file, archives or tables, all under one contract."""

from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from simmim.config import nearest
from simmim.data.archive import open_archives
from simmim.data.digits import open_digits
from simmim.data.folder import SPLITS, open_folder, splits_in, splits_of_folder
from simmim.data.image import ImageFile
from simmim.data.index import index_folder
from simmim.data.listing import LIST_SUFFIXES, open_listing
from simmim.data.shards import SHARD_SUFFIXES, is_pattern, matching, shards_in, shards_of_split, splits_of_shards
from simmim.data.tables import is_saved_dataset, open_parquet, open_saved, splits_of_saved

_BUILT_IN = ("digits",)
_ALLOWED = (
    f"allowed: a folder of images, a list file ({', '.join(LIST_SUFFIXES)}), tar, zip or Parquet files or a pattern of "
    f"them such as train-{{000..009}}.tar, a saved Hugging Face data set, or the built-in set {_BUILT_IN[0]}"
)


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
    if not path.exists() and is_pattern(str(data)):
        return _open_shards(str(data), matching(str(data)), split=split, labelled=labelled)
    if path.is_dir():
        return _open_dir(path, split=split, labelled=labelled)
    if not path.exists():
        raise ValueError(f"{data} is not there{_neighbour(path)}; {_ALLOWED}")
    if path.suffix.lower() in SHARD_SUFFIXES:
        return _open_shards(str(data), [path], split=split, labelled=labelled)
    if path.suffix.lower() not in LIST_SUFFIXES:
        raise ValueError(f"{data} is a file of the kind {path.suffix or 'without a suffix'}; {_ALLOWED}")
    if split is not None:
        raise ValueError(f"{data} is a list file and has no split {split!r}; give each split a list of its own")
    return open_listing(path, labelled=labelled)


def splits_of(data: str | Path) -> tuple[str, ...]:
    """The splits that `open_source` can choose from, such as ("train", "val"); empty if the set is one piece."""
    if str(data) in _BUILT_IN:
        return "train", "val", "test"
    path = Path(data).expanduser()
    if not path.exists() and is_pattern(str(data)):
        return tuple(splits_of_shards(matching(str(data))))
    if is_saved_dataset(path):
        return tuple(_saved_splits(path))
    return splits_of_folder(path) or (tuple(splits_of_shards(shards_in(path))) if _is_of_shards(path) else ())


def _open_dir(path: Path, *, split: str | None, labelled: bool) -> Source:
    if is_saved_dataset(path):
        return open_saved(_saved_part(path, split), labelled=labelled)
    if split is not None and not splits_in(path) and _is_of_shards(path):
        return _open_shards(str(path), shards_in(path), split=split, labelled=labelled)
    part = _part(path, split)
    if _is_of_shards(part):
        return _open_shards(str(part), shards_in(part), split=None, labelled=labelled)
    return open_folder(part, labelled=labelled)


def _is_of_shards(path: Path) -> bool:
    """Whether a folder holds no image file of its own, and tar, zip or Parquet files."""
    if not path.is_dir():
        return False
    index = index_folder(path)
    return not index.files and any(suffix in index.others for suffix in SHARD_SUFFIXES)


def _open_shards(where: str, shards: list[Path], *, split: str | None, labelled: bool) -> Source:
    kinds = sorted({shard.suffix.lower() for shard in shards})
    if len(kinds) > 1 or kinds[0] not in SHARD_SUFFIXES:
        raise ValueError(f"{where} names files of the kind {', '.join(kinds)}; allowed is one of {SHARD_SUFFIXES}")
    shards = shards if split is None else shards_of_split(Path(where), shards, split)
    return (open_parquet if kinds[0] == ".parquet" else open_archives)(shards, labelled=labelled)


def _saved_splits(path: Path) -> dict[str, Path]:
    parts = splits_of_saved(path)
    return {word: parts[name] for word, names in SPLITS.items() for name in reversed(names) if name in parts}


def _saved_part(path: Path, split: str | None) -> Path:
    parts, words = splits_of_saved(path), _saved_splits(path)
    if not parts and split is None:
        return path
    if split is None and len(parts) == 1:
        return next(iter(parts.values()))
    part = None if split is None else words.get(split, parts.get(split))
    if part is None:
        allowed = ", ".join({**words, **parts}) or "none, it is one piece"
        said = f"has no split {split!r}" if split is not None else "is divided into splits"
        raise ValueError(
            f"{path} {said}; choose one with data.split: {allowed}{nearest(split or '', [*words, *parts])}"
        )
    return part


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
