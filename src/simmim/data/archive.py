"""Images in tar and zip files, read at random: a source of byte ranges."""

import functools
import hashlib
import json
import os
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simmim.data.archive_index import Entry, index_archives, key_of
from simmim.data.decode import open_image
from simmim.data.files import Paths
from simmim.data.image import MAX_PIXELS, ImageFile, UnreadableImage
from simmim.data.labels import folders_as_labels, numbered

_HANDLES = 64
_LABEL_KEYS = ("label", "cls", "class", "class_name")


@dataclass(frozen=True, kw_only=True)
class Archive:
    """Images that lie in tar or zip files, a source (see `simmim.data.source.Source`), in the order of the archives.

    The fingerprint depends on names, sizes, order and labels, and not on where the archives lie.
    """

    shards: tuple[str, ...]
    names: Paths
    places: NDArray[np.int64]
    """Of each image: number of its shard, offset, size there, size unpacked (-1 where it is not packed), CRC-32 or -1."""
    labels: NDArray[np.int64] | None = None
    classes: tuple[str, ...] = ()
    problems: dict[str, str] = field(default_factory=dict[str, str])

    def __len__(self) -> int:
        return len(self.names)

    @property
    def listed(self) -> int:
        """How many files the set has, bad ones included."""
        return len(self.names) + len(self.problems)

    def name(self, index: int) -> str:
        """Shard and member, as a path."""
        return f"{self.shards[int(self.places[index, 0])]}/{self.names[index]}"

    def open(self, index: int, *, max_pixels: int = MAX_PIXELS) -> ImageFile:
        """Read one member and its header; raises `UnreadableImage`."""
        shard, *place = map(int, self.places[index])
        return open_image(read_member(self.shards[shard], *place), max_pixels=max_pixels)

    @property
    def fingerprint(self) -> str:
        """A digest that changes when the set changes."""
        labels = b"" if self.labels is None else self.labels.tobytes()
        text = self.names.digest() + self.places[:, 2:].tobytes() + labels + repr(self.classes).encode()
        return hashlib.blake2b(text, digest_size=16).hexdigest()


def open_archives(shards: Sequence[Path], *, labelled: bool) -> Archive:
    """The images in tar or zip files as a source; the index is made once and kept.

    Labels are those of the WebDataset layout (`.cls`, or `label`, `cls` or `class` in a `.json`, beside each image),
    or else the folders inside the archive.

    Raises `ValueError` where there is no image, or a label is asked for and missing.
    """
    index = index_archives(shards)
    where = str(shards[0]) if len(shards) == 1 else f"{shards[0]} and {len(shards) - 1} more"
    if not index.images:
        path, reason = next(iter(index.problems.items()), (where, "holds no image file"))
        raise ValueError(f"{where} holds no image that can be read; {path} {reason}")
    places = np.array([(image[0], *image[2:]) for image in index.images], dtype=np.int64)
    written = _labels(where, shards, index.images, index.notes) if labelled else None
    labels, classes = (None, ()) if written is None else numbered(written, where=where)
    return Archive(
        shards=tuple(map(str, shards)),
        names=Paths(image[1] for image in index.images),
        places=places,
        labels=labels,
        classes=classes,
        problems=index.problems,
    )


def read_member(shard: str, offset: int, packed: int, size: int = -1, check: int = -1) -> bytes:
    """The bytes of a member, unpacked and, where there is a CRC-32, compared with it."""
    data = os.pread(_handle(shard).number, packed, offset)
    if len(data) < packed:
        raise UnreadableImage(f"is cut off: {len(data)} of {packed} bytes are there")
    if size >= 0:
        try:
            data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, max(size, 1))
        except zlib.error as error:
            raise UnreadableImage(f"is damaged: {error}") from error
    if check >= 0 and zlib.crc32(data) != check:
        raise UnreadableImage("is damaged: its check sum is another")
    return data


class _Handle:
    """An open file that closes itself. Reads name their place, so a forked worker may share it."""

    def __init__(self, path: str) -> None:
        self.number = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))

    def __del__(self) -> None:
        if hasattr(self, "number"):
            os.close(self.number)


@functools.lru_cache(maxsize=_HANDLES)
def _opened(path: str, state: tuple[int, int, int]) -> _Handle:
    return _Handle(path)


def _handle(path: str) -> _Handle:
    state = os.stat(path)
    return _opened(path, (state.st_ino, state.st_size, state.st_mtime_ns))


def _labels(where: str, shards: Sequence[Path], images: Sequence[Entry], notes: Sequence[Entry]) -> Sequence[str]:
    if not notes:
        folders = folders_as_labels([image[1] for image in images])
        if folders is None:
            raise ValueError(
                f"{where} has no labels; expected: a .cls or .json beside each image, or one folder a class inside"
            )
        return folders
    found: dict[tuple[int, str], str] = {}
    for shard, name, *place in notes:
        label = _label_in(PurePosixPath(name).suffix, read_member(str(shards[shard]), *place))
        if label is not None and (name.endswith(".cls") or (shard, key_of(name)) not in found):
            found[shard, key_of(name)] = label
    bare = [image for image in images if (image[0], key_of(image[1])) not in found]
    if bare:
        raise ValueError(
            f"{shards[bare[0][0]]}: {len(bare)} images have no label, the first: {bare[0][1]}; expected: "
            f"{key_of(bare[0][1])}.cls, or .json with one of {', '.join(_LABEL_KEYS)}"
        )
    return [found[image[0], key_of(image[1])] for image in images]


def _label_in(suffix: str, data: bytes) -> str | None:
    text = data.decode("utf-8", errors="replace").strip()
    if suffix == ".cls":
        return text or None
    try:
        content: Any = json.loads(text)
    except ValueError:
        return None
    if not isinstance(content, dict):
        return str(content) if isinstance(content, int | str) else None
    return next((str(content[key]) for key in _LABEL_KEYS if key in content), None)  # pyright: ignore
