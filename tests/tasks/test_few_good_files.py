"""Bad files where labels, parts of a set and processes come in."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

import simmim
from simmim.data import DataConfig
from tasks.support import Process

QUICK = {
    "schedule.duration": "2 steps",
    "schedule.warmup": "1 steps",
    "batch": "8 images",
    "data.image_size": "32 px",
    "machine.workers": 0,
}


def _images(folder: Path, count: int, *, seed: int = 0) -> None:
    folder.mkdir(parents=True)
    generator = np.random.default_rng(seed)
    for number in range(count):
        Image.fromarray(generator.integers(0, 255, (20, 20, 3), dtype=np.uint8)).save(folder / f"{number:03d}.png")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unlabelled")
    _images(folder / "images", 16)
    return simmim.pretrain("tiny", data=folder / "images", out=folder / "run", settings=QUICK).path


def test_a_few_labels_of_a_large_set_are_not_refused_for_the_bad_files_of_the_whole(run: Path, tmp_path: Path) -> None:
    for number, name in enumerate(("a", "b")):
        _images(tmp_path / "labelled" / name, 60, seed=number)
    for number in range(3):
        (tmp_path / "labelled" / "a" / f"empty{number}.png").touch()
    settings = {**QUICK, "data.labels": "5 per class", "data.view": {"kind": "centre_crop"}}
    done = simmim.finetune(run, data=tmp_path / "labelled", out=tmp_path / "classifier", settings=settings)
    assert len(done.bad_files.read_text().splitlines()) == 3


def test_a_held_out_file_that_cannot_be_read_is_listed_and_no_other_is_judged_twice(run: Path, tmp_path: Path) -> None:
    for part, seed in (("train", 0), ("val", 5)):
        for name in ("a", "b"):
            _images(tmp_path / "labelled" / part / name, 12, seed=seed)
    broken = tmp_path / "labelled" / "val" / "a" / "003.png"
    broken.write_bytes(broken.read_bytes()[:60])
    done = simmim.finetune(run, data=tmp_path / "labelled", out=tmp_path / "classifier", settings=QUICK)
    assert str(broken) in done.bad_files.read_text()
    result = json.loads((done.path / "result.json").read_text())
    assert result["images"] == 23, "23 images were judged, not 24"
    assert round(result["accuracy"] * 23, 9) == round(result["accuracy"] * 23)


@pytest.mark.xdist_group("processes")
def test_too_many_empty_files_are_one_sentence_from_all_processes(tmp_path: Path) -> None:
    _images(tmp_path / "images", 20)
    for number in range(20):
        (tmp_path / "images" / f"empty{number}.png").touch()
    words = ("pretrain", "tiny", "--data", str(tmp_path / "images"), "--out", str(tmp_path / "run"))
    process = Process(*words, processes=2)
    assert process.wait(90) != 0
    assert process.stderr.count("20 of 40 files") == 1
    assert "simmim/tasks/" not in process.stderr, "a traceback of ours; torchrun adds one of its own"


@pytest.mark.parametrize(
    ("numbers", "said"),
    [
        ({"mean": (0.5,)}, "go together"),
        ({"mean": (0.5,), "std": (0.2, 0.2)}, "one a channel"),
        ({"mean": (0.5,), "std": (0.2,), "channels": 3}, "one a channel"),
        ({"mean": (0.5,), "std": (0.0,)}, "larger than 0"),
    ],
)
def test_statistics_that_do_not_go_together_are_refused(numbers: dict[str, object], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        DataConfig.model_validate({"image_size": (16, 16), **numbers})


def test_masks_of_ones_own_that_hide_everything_have_no_avgdist_and_end_no_run(tmp_path: Path) -> None:
    _images(tmp_path / "images", 16)
    settings = {**QUICK, "masking.kind": "tasks.own_parts:HidingEverything"}
    done = simmim.pretrain("tiny", data=tmp_path / "images", out=tmp_path / "run", settings=settings)
    rows = [json.loads(line) for line in done.metrics.read_text().splitlines()]
    assert rows[-1]["loss"] > 0
    assert "avgdist" not in rows[-1]
