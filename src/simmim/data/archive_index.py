"""The index of tar and zip files: where each member begins, found in one pass and kept until a file changes."""

import logging
import os
import struct
import tarfile
import time
import zipfile
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, TypeAlias

from simmim.data.decode import SUFFIXES
from simmim.data.index import SETTLED_NS, signs_of_life
from simmim.data.kept import cache_file, keep, recall

_log = logging.getLogger(__name__)

_NOTES = frozenset({".cls", ".json"})
_LOCAL_HEADER = struct.Struct("<4s22xHH")  # of a zip member: magic, ..., length of the name, of the extra field

Entry: TypeAlias = tuple[int, str, int, int, int, int]
"""Number of the shard, name, offset, size in the file, size unpacked or -1, CRC-32 or -1."""

_Member: TypeAlias = tuple[str, tuple[int, int, int, int] | str]
"""Its name; where it lies, or what is wrong with it."""


@dataclass
class ArchiveIndex:
    """What lies in some archives; `states` holds (bytes, change time in ns) of each."""

    states: list[tuple[int, int]] = field(default_factory=list[tuple[int, int]])
    images: list[Entry] = field(default_factory=list[Entry])
    notes: list[Entry] = field(default_factory=list[Entry])
    problems: dict[str, str] = field(default_factory=dict[str, str])


def index_archives(shards: Sequence[Path]) -> ArchiveIndex:
    """Find the images in tar or zip files, in the order in which they lie there.

    Hidden files are skipped. In a tar, files that share their name up to the first dot are one sample (the layout of
    WebDataset): beside `1.jpg`, a `1.mask.png` is not an image of its own. An archive that is damaged gives what lies
    before the damage, and is named among the problems.
    """
    states = [(state.st_size, state.st_mtime_ns) for state in map(os.stat, shards)]
    kept_in = cache_file("\0".join(str(shard.resolve()) for shard in shards))
    content = recall(kept_in)
    if content is not None and [tuple(state) for state in content["states"]] == states:
        return ArchiveIndex(states, _entries(content["images"]), _entries(content["notes"]), content["problems"])
    index, started = ArchiveIndex(states), time.time_ns()
    with signs_of_life(str(shards[0].parent)) as tell:
        for number, shard in enumerate(shards):
            _read_shard(index, number, shard)
            tell(len(index.images))
    if started - max(changed for _, changed in states) > SETTLED_NS:
        keep(kept_in, vars(index))
    return index


def _entries(rows: list[list[Any]]) -> list[Entry]:
    return [(row[0], row[1], row[2], row[3], row[4], row[5]) for row in rows]


def _read_shard(index: ArchiveIndex, number: int, shard: Path) -> None:
    images, notes = list[Entry](), list[Entry]()
    is_zip = shard.suffix.lower() == ".zip"
    try:
        for written, place in _zip_members(shard) if is_zip else _tar_members(shard):
            name = str(PurePosixPath(written))
            suffix = PurePosixPath(name).suffix.lower()
            if suffix not in SUFFIXES | _NOTES or _is_hidden(name):
                continue
            if isinstance(place, str):
                index.problems[f"{shard}/{name}"] = place
            else:
                (notes if suffix in _NOTES else images).append((number, name, *place))
    except (tarfile.TarError, zipfile.BadZipFile, OSError, struct.error, ValueError) as error:
        index.problems[str(shard)] = f"is damaged: {' '.join(str(error).split())}"
    index.images += images if is_zip else _one_a_sample(shard, images)
    index.notes += notes


def _is_hidden(name: str) -> bool:
    """Whether a part of the name has a leading dot, or is what macOS adds to a zip file."""
    return any(part.startswith(".") or part == "__MACOSX" for part in name.split("/"))


def _one_a_sample(shard: Path, images: list[Entry]) -> list[Entry]:
    plain = {key_of(image[1]) for image in images if _is_plain(image[1])}
    chosen = [image for image in images if _is_plain(image[1]) or key_of(image[1]) not in plain]
    if len(chosen) < len(images):
        _log.info("%s: %d images are parts of samples that have an image", shard, len(images) - len(chosen))
    return chosen


def _is_plain(name: str) -> bool:
    return PurePosixPath(name).name.count(".") == 1


def key_of(name: str) -> str:
    """What the files of one sample share in the WebDataset layout: the name up to its first dot, folders included."""
    folder, slash, base = name.rpartition("/")
    return folder + slash + base.partition(".")[0]


def _tar_members(shard: Path) -> Generator[_Member]:
    size = shard.stat().st_size
    if not size:
        raise ValueError("it is empty")
    try:
        archive = tarfile.open(shard, "r:")  # noqa: SIM115 - closed below
    except tarfile.ReadError as error:
        raise ValueError(f"{error}; a compressed tar cannot be read at random, unpack it to .tar first") from error
    with archive:
        while (member := archive.next()) is not None:
            archive.members = []  # pyright: ignore # a million of them are not wanted twice
            if not member.isreg():
                continue
            if member.issparse():
                yield member.name, "is stored as a sparse file"
            elif member.offset_data + member.size > size:
                yield member.name, f"is cut off: the archive ends {member.offset_data + member.size - size} bytes early"
            elif not member.size:
                yield member.name, "is empty"
            else:
                yield member.name, (member.offset_data, member.size, -1, -1)
        if size - archive.offset < tarfile.BLOCKSIZE:
            raise ValueError("it is cut off, there is no mark of its end")


def _zip_members(shard: Path) -> Generator[_Member]:
    with zipfile.ZipFile(shard) as archive, shard.open("rb") as file:
        for member in archive.infolist():
            if member.is_dir():
                continue
            packed = member.compress_type == zipfile.ZIP_DEFLATED
            if member.flag_bits & 1:
                yield member.filename, "is encrypted"
            elif not packed and member.compress_type != zipfile.ZIP_STORED:
                yield member.filename, f"is packed by method {member.compress_type}; allowed are stored and deflate"
            elif not member.file_size:
                yield member.filename, "is empty"
            else:
                file.seek(member.header_offset)
                magic, name, extra = _LOCAL_HEADER.unpack(file.read(_LOCAL_HEADER.size))
                if magic != b"PK\3\4":
                    yield member.filename, "is damaged: its header is not where the list says"
                    continue
                begin = member.header_offset + _LOCAL_HEADER.size + name + extra
                size = member.file_size if packed else -1
                yield member.filename, (begin, member.compress_size, size, member.CRC)
