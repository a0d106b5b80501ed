"""How long `simmim doctor` takes for a folder of many photographs; it promises less than a minute."""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

_DISTINCT, _FOLDERS = 200, 20
_SIZE = (240, 320)


def measure(files: int = 100_000, *, recipe: str = "tiny") -> dict[str, float]:
    """Seconds from the command to its end, of a folder that was never indexed."""
    with tempfile.TemporaryDirectory() as place:
        root = _make(Path(place), files)
        command = [sys.executable, "-m", "simmim", "doctor", str(root), recipe, "--json"]
        environment = {**os.environ, "XDG_CACHE_HOME": f"{place}/cache"}
        start = time.perf_counter()
        said = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
        seconds = time.perf_counter() - start
    return {"files": files, "seconds": seconds, "looked_at": json.loads(said)["looked_at"]}


def _make(place: Path, files: int) -> Path:
    """Many names of few photographs: what is measured is looking, not the disk."""
    generator = np.random.default_rng(0)
    (place / "distinct").mkdir()
    for number in range(_DISTINCT):
        coarse = generator.integers(0, 256, (8, 10, 3), dtype=np.uint8)
        smooth = np.asarray(Image.fromarray(coarse).resize(_SIZE[::-1], Image.Resampling.BICUBIC)).astype(int)
        noisy = (smooth + generator.integers(-12, 13, smooth.shape)).clip(0, 255).astype(np.uint8)
        Image.fromarray(noisy).save(place / "distinct" / f"{number:03d}.jpg", quality=85)
    for folder in range(_FOLDERS):
        (place / "images" / f"{folder:02d}").mkdir(parents=True)
    for number in range(files):
        name = place / "images" / f"{number % _FOLDERS:02d}" / f"{number:06d}.jpg"
        os.link(place / "distinct" / f"{number % _DISTINCT:03d}.jpg", name)
    return place / "images"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--recipe", default="tiny")
    given = parser.parse_args()
    print(json.dumps(measure(given.files, recipe=given.recipe), indent=2))


if __name__ == "__main__":
    main()
