"""The first twelve losses of a fixed tiny run, as they were when the file beside this one was made.

A change of the code that is meant to change nothing must leave them alone. To make the file anew, after a change that is
meant to: `python tests/tasks/test_reference_curve.py`.
"""

import json
import platform
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

FILE = Path(__file__).with_name("reference_curve.json")
SETTINGS = {
    "schedule.duration": "12 steps",
    "schedule.warmup": "3 steps",
    "output.log_every": "1 steps",
    "output.evaluate_every": "12 steps",
    "output.progress": False,
    "machine.micro_batch": "8 images",
    "encoder.drop_path": 0.1,
    "data.image_size": [64, 96],
}


def _images(folder: Path) -> Path:
    """32 arrays of 8 bits, made of whole numbers only, so that no library has a part in them."""
    folder.mkdir()
    rows, columns = np.mgrid[0:80, 0:120]
    for number in range(32):
        waves = [(rows * (3 + number % 5 + band) + columns * (2 + number % 7) * (band + 1)) % 256 for band in range(3)]
        disc = (rows - 10 - 2 * number % 60) ** 2 + (columns - 3 * number) ** 2 < (10 + number) ** 2
        image = np.stack(waves, axis=2)
        image[disc] = (255 - 8 * number, 8 * number, 128)
        np.save(folder / f"{number:02d}.npy", image.astype(np.uint8))
    return folder


def _curve(place: Path) -> list[float]:
    import simmim

    run = simmim.pretrain("tiny", data=_images(place / "images"), out=place / "run", seed=11, settings=SETTINGS).path
    return [json.loads(line)["loss"] for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_the_first_losses_are_those_that_were_stored(tmp_path: Path) -> None:
    stored = json.loads(FILE.read_text(encoding="utf-8"))
    assert len(stored["losses"]) == 12
    assert _curve(tmp_path) == pytest.approx(stored["losses"], rel=1e-5)  # other processors round in other ways


if __name__ == "__main__":
    import timm
    import torch

    with tempfile.TemporaryDirectory() as place:
        made = {
            "made_by": "python tests/tasks/test_reference_curve.py",
            "recipe": "tiny, seed 11, on 32 images that the test makes",
            "settings": SETTINGS,
            "on": f"{platform.system()} {platform.machine()}, {torch.get_num_threads()} threads",
            "python": sys.version.split()[0],
            "torch": torch.__version__,
            "timm": timm.__version__,
            "losses": _curve(Path(place)),
        }
    FILE.write_text(json.dumps(made, indent=2) + "\n", encoding="utf-8")
