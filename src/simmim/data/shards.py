"""Data sets of several files: the pattern that names them, and the splits that their names tell."""

import itertools
import re
from collections.abc import Sequence
from glob import glob, has_magic
from pathlib import Path

from simmim.config import nearest
from simmim.data.folder import SPLITS

SHARD_SUFFIXES = (".tar", ".zip", ".parquet")

_BRACE = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")


def is_pattern(data: str) -> bool:
    """Whether a text is a pattern of file names: braces, *, ? or [...]."""
    return has_magic(data) or _BRACE.search(data) is not None


def matching(pattern: str) -> list[Path]:
    """The files of a pattern: braces first, as a shell does, `{000..009}` and `{a,b}`; then *, ? and [...], sorted.

    Raises `ValueError` where a file that the braces name is not there, or nothing is.
    """
    found: list[Path] = []
    for each in _expanded(str(Path(pattern).expanduser())):
        here = [Path(path) for path in sorted(glob(each, recursive=True))] if has_magic(each) else [Path(each)]
        if not has_magic(each) and not here[0].exists():
            raise ValueError(f"{pattern} names {each}, which is not there")
        found += here
    if not found:
        raise ValueError(f"{pattern} matches no file")
    return found


def _expanded(pattern: str) -> list[str]:
    brace = _BRACE.search(pattern)
    if brace is None:
        return [pattern]
    limits = _RANGE.fullmatch(brace[1])
    if limits:
        first, last = limits[1], limits[2]
        words = [f"{number:0{len(first)}d}" for number in range(int(first), int(last) + 1)]
    else:
        words = brace[1].split(",")
    expanded = [_expanded(pattern[: brace.start()] + word + pattern[brace.end() :]) for word in words]
    return list(itertools.chain.from_iterable(expanded))


def shards_in(folder: Path) -> list[Path]:
    """The tar, zip or Parquet files of a folder, sorted: those of the first kind that is there."""
    for suffix in SHARD_SUFFIXES:
        found = sorted(path for path in folder.rglob(f"*{suffix}") if not path.name.startswith("."))
        if found:
            return found
    return []


def splits_of_shards(shards: Sequence[Path]) -> dict[str, list[Path]]:
    """The shards by split, where their names begin with the name of one, such as train-00000.parquet."""
    parts = {
        word: [shard for shard in shards if re.split(r"[^a-z]", shard.name.lower())[0] in names]
        for word, names in SPLITS.items()
    }
    return {word: part for word, part in parts.items() if part} if parts["train"] else {}


def shards_of_split(where: Path, shards: Sequence[Path], split: str) -> list[Path]:
    """The shards of one split; raises `ValueError` where there is none of that name."""
    splits = splits_of_shards(shards)
    if split not in splits:
        raise ValueError(
            f"{where} has no split {split!r}; allowed: {', '.join(splits) or 'none, its files name no split'}"
            + nearest(split, list(splits))
        )
    return splits[split]
