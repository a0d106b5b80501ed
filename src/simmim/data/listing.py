"""A list file: one image a line, with a label or without."""

import csv
from pathlib import Path, PurePath
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from simmim.config import nearest
from simmim.data.decode import SUFFIXES
from simmim.data.files import Files, Paths, fault_of
from simmim.data.labels import numbered

LIST_SUFFIXES = (".txt", ".csv")


class _Line(NamedTuple):
    number: int
    path: str
    label: str | None


def open_listing(file: Path, *, labelled: bool) -> Files:
    """The images named in a list file as a source, in the order of the list.

    A line holds a path, relative to the list's own folder or absolute, and may end in a label after a tab or a comma.
    Blank lines and lines that begin with # are skipped, in a `.csv` also a line of headings. If all labels are whole
    numbers they are taken as they are; otherwise they are names, numbered in sorted order.

    Raises `ValueError` if nothing in the list is there, or a label is asked for and missing.
    """
    root, problems, good = file.parent, dict[str, str](), list[_Line]()
    lines = _read_csv(file) if file.suffix.lower() == ".csv" else _read_text(file)
    for line in lines:
        path = root / line.path
        if fault := fault_of(str(path)):
            problems[str(path)] = fault
        else:
            good.append(line)
    if not good:
        raise ValueError(f"{file} lists no image: {_first(problems)}{_likely(root, lines)}")
    labels, classes = _numbered(file, good) if labelled else (None, ())
    paths = Paths(line.path for line in good)
    return Files(root=root, paths=paths, labels=labels, classes=classes, problems=problems)


def _read_text(file: Path) -> list[_Line]:
    text = file.read_text(encoding="utf-8-sig", errors="surrogateescape")
    stripped = ((number, line.strip()) for number, line in enumerate(text.splitlines(), start=1))
    return [_Line(number, *_parted(line)) for number, line in stripped if line and not line.startswith("#")]


def _parted(line: str) -> tuple[str, str | None]:
    for separator in ("\t", ","):
        path, found, label = line.rpartition(separator)
        # A comma inside a name is not a separator: what stands before it has to look like a file.
        if found and (separator == "\t" or _is_image_name(path)):
            return path.strip(), label.strip()
    return line, None


def _read_csv(file: Path) -> list[_Line]:
    with file.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as text:
        rows = [(number, row) for number, row in enumerate(csv.reader(text), start=1) if row and row[0].strip()]
    rows = [(number, row) for number, row in rows if not row[0].startswith("#")]
    if rows and not _is_image_name(rows[0][1][0]):
        rows = rows[1:]
    return [_Line(number, row[0].strip(), row[-1].strip() if len(row) > 1 else None) for number, row in rows]


def _is_image_name(path: str) -> bool:
    return PurePath(path.strip()).suffix.lower() in SUFFIXES


def _numbered(file: Path, lines: list[_Line]) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    written = [line.label for line in lines if line.label]
    if len(written) < len(lines):
        bare = next(line for line in lines if not line.label)
        raise ValueError(
            f"{file}, line {bare.number}: {bare.path} has no label; write it behind a tab or a comma, such as "
            f"{bare.path},cat"
        )
    return numbered(written, where=file)


def _first(problems: dict[str, str]) -> str:
    path, reason = next(iter(problems.items()), ("the list", "is empty"))
    return f"{path} {reason}" + (f", and so on, {len(problems)} in all" if len(problems) > 1 else "")


def _likely(root: Path, lines: list[_Line]) -> str:
    if not lines or not root.is_dir():
        return ""
    return nearest(PurePath(lines[0].path).parts[0], sorted(path.name for path in root.iterdir()))
