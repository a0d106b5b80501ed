"""A loss that is no number: skipped, counted, and after a few in a row the run stops with all it needs to find out why."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import simmim
from tasks.support import checkpoints, complete, contents, rows, run

pytestmark = pytest.mark.xdist_group("not finite")

SETTINGS: dict[str, Any] = {
    "schedule.duration": "20 steps",
    "schedule.warmup": "2 steps",
    "output.save_every": "1 steps",
    "output.log_every": "1 steps",
    "output.progress": False,
}


def _breaking(first: int, last: int) -> dict[str, Any]:
    return {"kind": "tasks.own_parts:BreakingTarget", "first": first, "last": last}


def _is_finite(path: Path) -> bool:
    return all(bool(tensor.isfinite().all()) for tensor in load_file(path).values() if tensor.is_floating_point())


def test_a_single_broken_step_is_skipped_and_counted_and_the_run_goes_on(pictures: Path, tmp_path: Path) -> None:
    settings = {**SETTINGS, "target": _breaking(6, 7), "output.log_every": "2 steps"}
    out = simmim.pretrain("tiny", data=pictures, out=tmp_path / "run", settings=settings).path
    reports = rows(out)
    assert [row["step"] for row in reports] == list(range(2, 21, 2))
    assert [row["skipped_steps"] for row in reports] == [0, 0, 0, *[2] * 7]
    assert reports[3]["loss"] is None, "no loss of steps 7 and 8 was a number"
    assert np.isfinite([row["loss"] for row in reports if row["loss"] is not None]).all()
    assert _is_finite(out / "encoder.safetensors")


def test_a_skipped_step_leaves_the_weights_as_they_were(pictures: Path, tmp_path: Path) -> None:
    settings = {**SETTINGS, "target": _breaking(6, 7), "output.keep": 30}
    out = simmim.pretrain("tiny", data=pictures, out=tmp_path / "run", settings=settings).path
    saved = {int(path.stem[5:]): load_file(path) for path in checkpoints(out)}
    for step in (7, 8):
        assert all(torch.equal(saved[step][name], saved[6][name]) for name in saved[6])
    assert not torch.equal(saved[9]["model/mask_token"], saved[6]["model/mask_token"])


@pytest.fixture(scope="module")
def stopped(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int, str]:
    """A run that breaks for good in its eighth step: its folder, exit code and last words."""
    out = tmp_path_factory.mktemp("broken") / "run"
    process = run(
        *("pretrain", "tiny", "--data", str(pictures), "--out", str(out)),
        *(f"{name}={str(value).lower() if value is False else value}" for name, value in SETTINGS.items()),
        "target={kind: 'tasks.own_parts:BreakingTarget', first: 7}",
        "output.keep=2",
    )
    return out, process.process.returncode, process.stderr


def test_a_run_that_stays_broken_stops_with_a_sentence(stopped: tuple[Path, int, str]) -> None:
    out, code, said = stopped
    assert code == 2
    assert "Traceback" not in said
    assert "5 steps in a row" in said
    assert "replay_step_00000011.safetensors" in said
    assert not (out / "encoder.safetensors").exists()


def test_what_a_broken_run_saved_is_finite_and_loads(stopped: tuple[Path, int, str]) -> None:
    out = stopped[0]
    assert all(_is_finite(path) for path in checkpoints(out))
    model = simmim.load(out)
    assert all(bool(weight.isfinite().all()) for weight in model.parameters())
    reports = rows(out)
    assert [row["step"] for row in reports] == list(range(1, 12))
    assert [row["skipped_steps"] for row in reports] == [0] * 7 + [1, 2, 3, 4]
    assert [row["loss"] for row in reports[7:]] == [None] * 4


def test_the_replay_file_loads_and_holds_the_images_and_masks_of_the_broken_step(
    stopped: tuple[Path, int, str],
) -> None:
    replay = stopped[0] / "replay_step_00000011.safetensors"
    model = simmim.load(replay)
    tensors = load_file(replay)
    inputs = [tensors[f"input/{number}"] for number in range(2)]
    assert inputs[0].shape == (16, 3, 64, 64)
    assert inputs[0].isfinite().all()
    played = [bool(model(*inputs).loss.isfinite()) for _ in range(8)]
    assert played == [True] * 7 + [False], "this target breaks at its eighth call, as it did in the run"


def test_an_absurd_learning_rate_stops_the_run_and_leaves_a_finite_checkpoint(pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    settings = {**SETTINGS, "optimizer.lr": 1e30, "schedule.duration": "60 steps"}
    with pytest.raises(ValueError, match=r"optimizer\.lr"):
        simmim.pretrain("tiny", data=pictures, out=out, settings=settings)
    assert all(_is_finite(path) for path in checkpoints(out))
    assert simmim.load(out)
    assert rows(out)[0]["loss"] is not None


def test_broken_weights_do_not_replace_the_finite_checkpoint(pictures: Path, tmp_path: Path) -> None:
    """The last step overflows the weights; nothing behind it could notice."""
    out = tmp_path / "run"
    settings = {**SETTINGS, "schedule.duration": "3 steps", "schedule.warmup": "0 steps", "schedule.decay": "constant"}
    settings |= {"optimizer.lr": 3e38, "optimizer.weight_decay": 1.0}
    with pytest.raises(ValueError, match="finite"):
        simmim.pretrain("tiny", data=pictures, out=out, settings=settings)
    assert not (out / "encoder.safetensors").exists()
    assert all(_is_finite(path) for path in checkpoints(out))


def test_a_replay_folder_can_be_resumed_with_a_cure_only_as_another_run(
    stopped: tuple[Path, int, str], pictures: Path
) -> None:
    out = stopped[0]
    before = contents(out)
    with pytest.raises(ValueError, match="another recipe"):
        simmim.pretrain("tiny", data=pictures, out=out, resume=True, settings=SETTINGS)
    assert contents(out) == before


def test_reports_stay_json_where_a_classifier_breaks(pictures: Path, tmp_path: Path) -> None:
    encoder = simmim.pretrain(
        "tiny", data="digits", out=tmp_path / "run", settings={"schedule.duration": "2 steps", "output.progress": False}
    )
    settings = {"optimizer.lr": 1e30, "schedule.duration": "3 steps", "schedule.warmup": "0 steps", "drop_path": 0.0}
    settings |= {"output.evaluate_every": "1 steps", "output.log_every": "1 steps", "output.progress": False}
    settings |= {"machine.workers": 0}
    out = tmp_path / "classifier"
    with pytest.raises(ValueError, match="finite"):
        simmim.finetune(encoder.path, data="digits", out=out, settings={**settings, "optimizer.max_skipped": 2})
    rows(out)  # refuses NaN


def test_one_broken_process_of_two_skips_the_step_in_both(pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    complete(
        *("pretrain", "tiny", "--data", str(pictures), "--out", str(out)),
        *(
            "schedule.duration=10 steps",
            "schedule.warmup=2 steps",
            "output.log_every=1 steps",
            "output.save_every=1 steps",
        ),
        "target={kind: 'tasks.own_parts:BreakingTarget', first: 6, last: 7, only_rank: 1}",
        "output.keep=20",
        processes=2,
    )
    assert [row["skipped_steps"] for row in rows(out)] == [0] * 6 + [1, 2, 2, 2]
    saved = {int(path.stem[5:]): load_file(path) for path in checkpoints(out)}
    assert all(torch.equal(saved[8][name], saved[6][name]) for name in saved[6])
