"""How fast a folder of many files is indexed, at first and again."""

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path
from unittest import mock

from simmim.data import open_source

_FOLDERS = 1000
_SETTLED_SECONDS = 10


def measure(files: int = 100_000, *, rounds: int = 3) -> dict[str, float]:
    """Make a folder of tiny files and open it, without and with a kept index; medians, files a second."""
    with tempfile.TemporaryDirectory() as place, mock.patch.dict(os.environ):
        root = _make(Path(place) / "images", files)
        first: list[float] = []
        again: list[float] = []
        for number in range(rounds):
            os.environ["XDG_CACHE_HOME"] = f"{place}/cache{number}"
            first.append(_seconds(root))
            again.append(_seconds(root))
    return {
        "files": files,
        "first_seconds": statistics.median(first),
        "first_files_per_second": files / statistics.median(first),
        "again_seconds": statistics.median(again),
        "again_files_per_second": files / statistics.median(again),
    }


def _make(root: Path, files: int) -> Path:
    past = time.time() - _SETTLED_SECONDS  # an index of a folder that is still being written is not kept
    for number in range(_FOLDERS):
        folder = root / f"{number:04d}"
        folder.mkdir(parents=True)
        for file in range(number, files, _FOLDERS):
            with open(f"{folder}/{file:06d}.jpg", "wb") as image:
                image.write(b"x")
        os.utime(folder, (past, past))
    os.utime(root, (past, past))
    return root


def _seconds(root: Path) -> float:
    start = time.perf_counter()
    open_source(root, labelled=True)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=100_000)
    print(json.dumps(measure(parser.parse_args().files), indent=2))


if __name__ == "__main__":
    main()
