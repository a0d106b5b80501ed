"""A folder of images, of any depth; with labels, one class a sub-folder."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from simmim.data.files import Files, Paths
from simmim.data.index import FolderIndex, index_folder

# What a folder may call the part of a data set that is asked for, the first that is there.
SPLITS = {"train": ("train", "training"), "val": ("val", "valid", "validation", "test"), "test": ("test",)}

_LAYOUT = "expected: one sub-folder a class, such as {root}/cat/1.jpg and {root}/dog/2.jpg"


def splits_in(root: Path) -> dict[str, Path]:
    """The sub-folders that have the name of a split, by its word: "train", "val", "test"."""
    return {word: root / name for word, names in SPLITS.items() for name in reversed(names) if (root / name).is_dir()}


def splits_of_folder(root: Path) -> tuple[str, ...]:
    """The splits a folder is divided into: train and at least one other. A lone train may be a picture of a railway."""
    splits = splits_in(root)
    return tuple(splits) if "train" in splits and len(splits) > 1 else ()


def open_folder(root: Path, *, labelled: bool) -> Files:
    """The images below a folder as a source; with labels, the first level of folders are the classes.

    Raises `ValueError` if there is no image, or, when labels are asked for, no folder of images.
    """
    index = index_folder(root)
    if not index.files:
        raise ValueError(_nothing_found(root, index))
    if not labelled:
        return Files(root=root, paths=Paths(index.files), problems=_named(root, index.problems))
    splits = splits_of_folder(root)
    if splits:
        raise ValueError(f"{root} is divided into {', '.join(splits)}; choose one, such as split='train'")
    return _with_labels(root, index)


def _with_labels(root: Path, index: FolderIndex) -> Files:
    files = [path for path in index.files if "/" in path]
    if not files:
        raise ValueError(
            f"{root} has {len(index.files)} images and no class folders, so there are no labels; "
            + _LAYOUT.format(root=root)
        )
    stray = {path: "lies outside the class folders" for path in index.files if "/" not in path}
    names = [path.partition("/")[0] for path in files]
    classes = in_order(set(names))
    numbers = {name: number for number, name in enumerate(classes)}
    return Files(
        root=root,
        paths=Paths(files),
        labels=np.array([numbers[name] for name in names], dtype=np.int64),
        classes=classes,
        problems=_named(root, index.problems | stray),
    )


def in_order(names: Iterable[str]) -> tuple[str, ...]:
    """Class names in the order of their numbers: sorted; where all are numbers, as in ImageNet-V2, by value."""
    names = sorted(names)
    return tuple(sorted(names, key=int) if all(name.isdecimal() for name in names) else names)


def _named(root: Path, problems: dict[str, str]) -> dict[str, str]:
    return {str(root / path): reason for path, reason in sorted(problems.items())}


def _nothing_found(root: Path, index: FolderIndex) -> str:
    found = [f"{path}, which {reason}" for path, reason in list(index.problems.items())[:1]]
    found += [f"{count} x {suffix}" for suffix, count in list(index.others.items())[:5]]
    bare = "; images are known by the ends of their names, so give DICOM files without one the end .dcm"
    return (
        f"{root} holds no image; looked for .jpg .png .webp .tif .bmp .gif .npy .dcm at any depth, "
        f"found {', '.join(found) or 'no files at all'}{bare if 'no suffix' in index.others else ''}"
    )
