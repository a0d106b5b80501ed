"""Images in the rows of a table: Parquet files, and Hugging Face data sets that lie on this machine."""

import functools
import hashlib
import json
import logging
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from simmim.config import nearest
from simmim.data.decode import open_image
from simmim.data.image import MAX_PIXELS, ImageFile, UnreadableImage
from simmim.data.labels import numbered

_log = logging.getLogger(__name__)

_IMAGE_COLUMNS = ("image", "img", "jpg", "png", "images")
_LABEL_COLUMNS = ("label", "labels", "class", "cls")
_NEEDED = 'this needs pyarrow and datasets, which are not installed; pip install "simmim[datasets]"'
_LARGE_GROUP = 64 * 2**20
_GROUPS_HELD = 2
_SAVED = ("state.json", "dataset_dict.json")

Row = Mapping[str, Any]
"""What the image column holds: `bytes`, or where there are none, a `path`."""


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Rows of a table as a source (see `simmim.data.source.Source`).

    The fingerprint depends on the names, their number and the labels; a row whose content was replaced is not noticed.
    """

    where: str
    files: tuple[str, ...]
    """The Parquet files, or the one folder of a data set that was saved."""
    starts: tuple[int, ...]
    """The number of the first row in each file, and at the end the number of all rows."""
    column: str
    labels: NDArray[np.int64] | None = None
    classes: tuple[str, ...] = ()
    problems: dict[str, str] = field(default_factory=dict[str, str])

    def __len__(self) -> int:
        return self.starts[-1]

    @property
    def listed(self) -> int:
        """How many rows the set has."""
        return len(self)

    def name(self, index: int) -> str:
        """The file and the number of the row in it, from 0."""
        file, row = self._place(index)
        return f"{self.files[file]}/row {row}"

    def open(self, index: int, *, max_pixels: int = MAX_PIXELS) -> ImageFile:
        """Read one row and the header of its image; raises `UnreadableImage`."""
        file, row = self._place(index)
        place = self.files[file]
        read = _row_of_parquet if place.endswith(".parquet") else _row_of_saved
        cell = read(place, self.column, row)
        return open_image(_content(cell, Path(place).parent), max_pixels=max_pixels)

    def _place(self, index: int) -> tuple[int, int]:
        index = range(len(self))[index]
        file = bisect_right(self.starts, index) - 1
        return file, index - self.starts[file]

    @property
    def fingerprint(self) -> str:
        """A digest that changes when the set changes."""
        labels = b"" if self.labels is None else self.labels.tobytes()
        names = [Path(file).name for file in self.files]
        text = repr((names, self.starts, self.column, self.classes)).encode() + labels
        return hashlib.blake2b(text, digest_size=16).hexdigest()


def open_parquet(files: Sequence[Path], *, labelled: bool) -> Rows:
    """The rows of Parquet files as a source; images are bytes, or the struct (bytes, path) of Hugging Face.

    A row is found by its row group, which is read whole: files with groups of about 100 rows, as `datasets` writes them
    for images, are read fast at random, and one with larger groups is slow, of which the log warns.

    Raises `ValueError` where no column holds images, or a label is asked for and missing.
    """
    parquet = _needed("pyarrow.parquet")
    footers = [parquet.read_metadata(file) for file in files]
    schema = parquet.read_schema(files[0])
    column = _image_column(files[0], {name: _is_image(schema.field(name).type) for name in schema.names})
    _warn_of_large_groups(files, footers, column)
    starts = (0, *np.cumsum([footer.num_rows for footer in footers]).tolist())
    label = _label_column(files[0], schema.names) if labelled else None
    labels, classes = None, ()
    if label is not None:
        tables = [parquet.read_table(file, columns=[label], use_threads=False) for file in files]
        values = [value for table in tables for value in table.column(0).to_pylist()]
        labels, classes = _numbered(values, _names_in(schema.metadata, label), where=files[0])
    return Rows(where=str(files[0].parent), files=tuple(map(str, files)), starts=starts, column=column,
                labels=labels, classes=classes)  # fmt: skip


def is_saved_dataset(folder: Path) -> bool:
    """Whether a folder was written by the `save_to_disk` of Hugging Face's `datasets`."""
    return any((folder / name).is_file() for name in _SAVED) and (
        (folder / "dataset_dict.json").is_file() or (folder / "dataset_info.json").is_file()
    )


def splits_of_saved(folder: Path) -> dict[str, Path]:
    """The parts of a saved data set by name; empty where it is one piece."""
    listing = folder / "dataset_dict.json"
    if not listing.is_file():
        return {}
    return {name: folder / name for name in json.loads(listing.read_text(encoding="utf-8"))["splits"]}


def open_saved(folder: Path, *, labelled: bool) -> Rows:
    """A data set that Hugging Face's `datasets` saved to a folder, as a source; its files stay on the disk.

    Raises `ValueError` where no column holds images, or a label is asked for and missing.
    """
    table = _saved(str(folder))
    features = table.features
    column = _image_column(folder, {name: _is_image_feature(kind) for name, kind in features.items()})
    label = _label_column(folder, list(features)) if labelled else None
    labels, classes = None, ()
    if label is not None:
        labels, classes = _numbered(list(table[label]), getattr(features[label], "names", None), where=folder)
    return Rows(where=str(folder), files=(str(folder),), starts=(0, len(table)), column=column,
                labels=labels, classes=classes)  # fmt: skip


def _needed(module: str) -> Any:
    import importlib

    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ValueError(_NEEDED) from error


@functools.lru_cache(maxsize=4)
def _saved(folder: str) -> Any:
    return _needed("datasets").load_from_disk(folder)


@functools.lru_cache(maxsize=4)
def _saved_bytes(folder: str, column: str) -> Any:
    """One column as it is stored, not decoded."""
    table = _saved(folder).select_columns([column])
    if type(table.features[column]).__name__ == "Image":
        table = table.cast_column(column, _needed("datasets").Image(decode=False))
    return table


def _row_of_saved(folder: str, column: str, row: int) -> Any:
    return _saved_bytes(folder, column)[row][column]


def _row_of_parquet(file: str, column: str, row: int) -> Any:
    starts = _group_starts(file)
    group = bisect_right(starts, row) - 1
    return _group(file, column, group)[row - starts[group]].as_py()


@functools.lru_cache(maxsize=1024)
def _group_starts(file: str) -> tuple[int, ...]:
    footer = _needed("pyarrow.parquet").read_metadata(file)
    return (0, *np.cumsum([footer.row_group(number).num_rows for number in range(footer.num_row_groups)]).tolist())


@functools.lru_cache(maxsize=_GROUPS_HELD)
def _group(file: str, column: str, group: int) -> Any:
    # Threads of the reader do not outlive a fork; the loader's workers read one group at a time anyway.
    with _needed("pyarrow.parquet").ParquetFile(file) as table:
        return table.read_row_group(group, columns=[column], use_threads=False).column(0)


def _content(cell: Any, folder: Path) -> bytes | Path:
    if isinstance(cell, Mapping):
        row = cast(Row, cell)
        cell = row.get("bytes") or (folder / row["path"] if row.get("path") else None)
    if cell is None:
        raise UnreadableImage("holds no image")
    return cell


def _is_image(kind: Any) -> bool:
    types = _needed("pyarrow").types
    if types.is_struct(kind):
        return any(kind.field(number).name == "bytes" for number in range(kind.num_fields))
    return types.is_binary(kind) or types.is_large_binary(kind)


def _is_image_feature(kind: Any) -> bool:
    return type(kind).__name__ == "Image" or getattr(kind, "dtype", None) in ("binary", "large_binary")


def _image_column(where: Path, columns: Mapping[str, bool]) -> str:
    holding = [name for name, image in columns.items() if image]
    for name in _IMAGE_COLUMNS:
        if name in holding:
            return name
    if len(holding) == 1:
        return holding[0]
    raise ValueError(
        f"{where} has {'no column' if not holding else 'several columns'} of images: {', '.join(columns)}; expected: a "
        "column image that holds bytes, or bytes and path"
    )


def _label_column(where: Path, columns: Sequence[str]) -> str:
    for name in _LABEL_COLUMNS:
        if name in columns:
            return name
    raise ValueError(
        f"{where} has no column of labels; it has {', '.join(columns)}, expected: {', '.join(_LABEL_COLUMNS)}"
        + nearest("label", list(columns))
    )


def _numbered(
    values: Sequence[Any], names: Sequence[str] | None, *, where: Path
) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    bare = next((row for row, value in enumerate(values) if value is None or value == -1), None)
    if bare is not None:
        raise ValueError(f"{where}: row {bare} has no label")
    if names is not None:
        return np.array(values, dtype=np.int64), tuple(names)
    return numbered([str(value) for value in values], where=where)


def _names_in(metadata: Mapping[bytes, bytes] | None, column: str) -> Sequence[str] | None:
    """The class names that `datasets` writes into a Parquet file."""
    text = (metadata or {}).get(b"huggingface")
    about: Any = json.loads(text or "{}")
    return about.get("info", {}).get("features", {}).get(column, {}).get("names")


def _warn_of_large_groups(files: Sequence[Path], footers: Sequence[Any], column: str) -> None:
    for file, footer in zip(files, footers, strict=True):
        sizes = [footer.row_group(number).total_byte_size for number in range(footer.num_row_groups)]
        if sizes and max(sizes) > _LARGE_GROUP:
            _log.warning(
                "%s has row groups of up to %d MiB, and each image costs the reading of one; written anew with "
                "row_group_size=100 it is read much faster",
                file,
                max(sizes) // 2**20,
            )
            return
