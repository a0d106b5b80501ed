"""Frozen features of any images, in a file beside their names."""

import importlib.util
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from simmim.config import nearest
from simmim.data import LabelledDataConfig, Source, open_source, splits_of
from simmim.encoders.layers import Place
from simmim.files import write_atomically
from simmim.tasks.features import FrozenEncoder

SUFFIXES = (".parquet", ".npz")


class Embedded(NamedTuple):
    """Where features lie, and of what they are."""

    file: str
    images: int
    width: int
    """Channels of a feature."""
    layer: int
    pooling: str
    labelled: int
    """Images whose label is known."""
    left_out: dict[str, str]
    """Images that could not be read, path to reason."""


def embed(
    run: str | Path,
    *,
    data: str | Path,
    out: str | Path,
    layer: int | None = None,
    pooling: str = "mean",
    batch: int = 64,
    workers: int = 0,
) -> Embedded:
    """Write the features of images, float32, in the order of their source; files that cannot be read are left out.

    A Parquet file has the columns `file`, `label` (null where there is none) and `features`; an .npz file the arrays
    `files`, `labels` ("" where there is none) and `features` (images, channels).

    Args:
        run: a run folder, or an `encoder.safetensors`.
        data: a folder of any depth, a list file, or a built-in name, with labels or without.
        out: the file, .parquet or .npz; what lay there is replaced.
        layer: the block, counted from 1; the last one, behind the final norm, if not given.
        pooling: "mean" of the patches, or "cls" token.
        batch: images encoded at a time.
        workers: processes that read images.

    Raises:
        ValueError: where the kind of file is unknown, pyarrow is missing, or layer or pooling are not there.
    """
    out = Path(out)
    _check_kind(out)
    encoder = FrozenEncoder(run)
    (place,) = encoder.layers.places(layer=encoder.layers.depth if layer is None else layer, pooling=pooling)
    source = open_source(data)
    found = encoder.read(source, [place], data=LabelledDataConfig(), batch=batch, workers=workers)
    files = [source.name(int(index)) for index in found.indices]
    known = _labels(data, source)
    labels = [known.get(file) for file in files]
    features = found.at[place]
    if out.suffix == ".npz":
        _write_npz(out, files, labels, features, place)
    else:
        _write_parquet(out, files, labels, features, place)
    count = sum(label is not None for label in labels)
    return Embedded(str(out), len(files), features.shape[1], place.layer, place.pooling, count, found.problems)


def _check_kind(out: Path) -> None:
    if out.suffix not in SUFFIXES:
        raise ValueError(f"--out {out}: allowed are {' and '.join(SUFFIXES)}{nearest(out.suffix, SUFFIXES)}")
    if out.suffix == ".parquet" and importlib.util.find_spec("pyarrow") is None:
        raise ValueError('a Parquet file needs pyarrow: pip install "simmim[datasets]"; or write an .npz file')


def _labels(data: str | Path, source: Source) -> dict[str, str]:
    """The class of each file by its name, where the set says it; the order of the set and its other files stay as is."""
    if source.labels is not None:
        return {source.name(number): source.classes[label] for number, label in enumerate(source.labels.tolist())}
    known: dict[str, str] = {}
    for split in splits_of(data) or (None,):
        try:
            part = open_source(data, split=split, labelled=True)
        except ValueError:
            continue  # a set without labels is welcome too
        assert part.labels is not None
        known |= {part.name(number): part.classes[label] for number, label in enumerate(part.labels.tolist())}
    return known


def _write_npz(
    out: Path, files: list[str], labels: list[str | None], features: NDArray[np.float32], place: Place
) -> None:
    arrays: dict[str, Any] = {
        "files": np.array(files),
        "labels": np.array([label or "" for label in labels]),
        "features": features,
        "layer": np.array(place.layer),
        "pooling": np.array(place.pooling),
    }

    def write(part: Path) -> None:
        with part.open("wb") as file:
            np.savez(file, **arrays)

    write_atomically(out, write)


def _write_parquet(
    out: Path, files: list[str], labels: list[str | None], features: NDArray[np.float32], place: Place
) -> None:
    import pyarrow
    import pyarrow.parquet

    arrow, parquet = cast(Any, pyarrow), cast(Any, pyarrow.parquet)  # pyarrow says no types
    lists = arrow.FixedSizeListArray.from_arrays(arrow.array(features.reshape(-1)), features.shape[1])
    columns = {"file": arrow.array(files, arrow.string()), "label": arrow.array(labels, arrow.string())}
    words = {"layer": str(place.layer), "pooling": place.pooling}
    table = arrow.table({**columns, "features": lists}).replace_schema_metadata(words)
    write_atomically(out, lambda part: parquet.write_table(table, part))
