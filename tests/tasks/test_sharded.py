"""Weights that are spread over processes: the run of one process, saved in parts that any number of processes takes up."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import simmim
from simmim.engine.checkpoint import read_checkpoint
from simmim.tasks.leaving import leaving
from simmim.tasks.load import load_with_settings
from tasks.support import complete, folder_of_pictures, losses, rows, timeless

pytestmark = pytest.mark.xdist_group("sharded")

ENCODER = (
    "{kind: swinv2, name: swinv2_giant_window12_192, patch_size: 4 px, embed_dim: 16, depths: [2, 2], "
    "num_heads: [1, 2], window: 4, extra_norm_every: 2}"
)
SETTINGS = {
    "encoder": ENCODER,
    "schedule.duration": "12 steps",
    "schedule.warmup": "2 steps",
    "output.log_every": "1 steps",
    "output.save_every": "4 steps",
    "output.evaluate_every": "6 steps",
    "output.progress": "false",
    "machine.micro_batch": "4 images",
    "batch": "16 images",
}
FSDP = "machine.parallel=fsdp"


def _words(pictures: Path, out: Path, *more: str, **settings: str) -> tuple[str, ...]:
    given = (f"{name}={value}" for name, value in {**SETTINGS, **settings}.items())
    return ("pretrain", "tiny", "--data", str(pictures), "--out", str(out), "--seed", "5", *given, *more)


def _names(run: Path) -> list[str]:
    return sorted(path.name for path in (run / "checkpoints").iterdir())


def _cut(run: Path, out: Path, *, step: int) -> Path:
    """A run as it lay there behind the checkpoint of a step."""
    shutil.copytree(run, out)
    (out / "encoder.safetensors").unlink()
    for path in (out / "checkpoints").iterdir():
        if int(path.stem.removeprefix("step_")) > step:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    return out


def _assert_close(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert torch.allclose(tensor, other[name], rtol=1e-4, atol=5e-5), name


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of 9 and 8 images."""
    root = tmp_path_factory.mktemp("labelled") / "set"
    for name, count in (("cats", 9), ("dogs", 8)):
        folder_of_pictures(root / name, count)
    return root


@pytest.fixture(scope="module")
def one(pictures: Path, labelled: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of one process."""
    out = tmp_path_factory.mktemp("one") / "run"
    complete(*_words(pictures, out, f"monitor.data={labelled}"))
    return out


@pytest.fixture(scope="module")
def four(pictures: Path, labelled: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same in four processes, each with a quarter of the weights, which compute the cheap part of every block twice."""
    out = tmp_path_factory.mktemp("four") / "run"
    words = _words(pictures, out, FSDP, "machine.checkpointing=selective", f"monitor.data={labelled}")
    done = complete(*words, processes=4)
    assert "Warning" not in done.stderr, done.stderr
    return out


@pytest.fixture(scope="module")
def two(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same in two processes, two micro batches a step, with drop path."""
    out = tmp_path_factory.mktemp("two") / "run"
    complete(*_words(pictures, out, FSDP, "encoder.drop_path=0.2"), processes=2)
    return out


def test_four_processes_learn_what_one_learns(one: Path, four: Path) -> None:
    assert len(losses(one)) == 12
    assert losses(four) == pytest.approx(losses(one), rel=1e-4)
    for name in ("gradient_norm", "fixed_loss", "knn_accuracy", "avgdist"):
        found = [[row[name] for row in rows(run) if name in row] for run in (four, one)]
        assert found[1], name
        assert found[0] == pytest.approx(found[1], rel=1e-3), name
    _assert_close(*(load_file(run / "encoder.safetensors") for run in (four, one)))
    assert [path.name for path in sorted((four / "pictures").iterdir())] == ["step_00000006.png", "step_00000012.png"]


def test_every_process_writes_its_part_and_the_parts_are_the_whole(one: Path, four: Path) -> None:
    assert _names(four) == ["step_00000004", "step_00000008", "step_00000012"]
    newest = four / "checkpoints" / "step_00000012"
    sizes = {path.name: path.stat().st_size for path in newest.glob("__*")}
    assert len(sizes) == 4
    assert max(sizes.values()) < 0.5 * sum(sizes.values())
    parts, file = read_checkpoint(newest), read_checkpoint(one / "checkpoints" / "step_00000012.safetensors")
    _assert_close(parts.below("model"), file.below("model"))
    assert parts.tensors.keys() == file.tensors.keys()
    assert all(tensor.dtype == file.tensors[name].dtype for name, tensor in parts.tensors.items())
    assert {**parts.state, "meters": 0, "recipe": 0} == {**file.state, "meters": 0, "recipe": 0}


def test_in_bf16_parts_are_gathered_short_and_kept_in_float32(pictures: Path, tmp_path: Path) -> None:
    runs = tmp_path / "one", tmp_path / "two"
    settings = {"schedule.duration": "4 steps", "machine.precision": "bf16"}
    complete(*_words(pictures, runs[0], **settings))
    complete(*_words(pictures, runs[1], FSDP, **settings), processes=2)
    assert losses(runs[1]) == pytest.approx(losses(runs[0]), rel=5e-3)
    saved = read_checkpoint(runs[1] / "checkpoints" / "step_00000004")
    assert {tensor.dtype for tensor in saved.below("model").values() if tensor.is_floating_point()} == {torch.float32}


def test_verbs_read_what_many_processes_saved(four: Path) -> None:
    whole = load_file(four / "encoder.safetensors")
    model = simmim.load(four)
    assert all(torch.equal(tensor, whole[name]) for name, tensor in model.encoder.backbone.state_dict().items())
    assert load_with_settings(four / "checkpoints" / "step_00000008").step == 8
    assert leaving(four).model is not None, "export takes the encoder alone"


def test_what_four_saved_one_process_takes_up(four: Path, pictures: Path, labelled: Path, tmp_path: Path) -> None:
    out = _cut(four, tmp_path / "run", step=8)
    complete(*_words(pictures, out, "--resume", f"monitor.data={labelled}"))
    assert losses(out) == pytest.approx(losses(four), rel=1e-4)
    assert _names(out) == ["step_00000004", "step_00000008", "step_00000012.safetensors"]
    _assert_close(*(load_file(run / "encoder.safetensors") for run in (out, four)))


def test_two_processes_take_up_what_four_saved_though_the_newest_is_damaged(
    four: Path, pictures: Path, tmp_path: Path
) -> None:
    out = _cut(four, tmp_path / "run", step=8)
    damaged = next((out / "checkpoints" / "step_00000008").glob("__2*"))
    contents = bytearray(damaged.read_bytes())
    contents[len(contents) // 2] ^= 1
    damaged.write_bytes(contents)
    done = complete(*_words(pictures, out, FSDP, "--resume"), processes=2)
    assert done.stderr.count("step_00000008 is damaged") == 1
    assert "goes on from" not in done.stderr
    assert losses(out) == pytest.approx(losses(four), rel=1e-4)
    assert _names(out) == ["step_00000004", "step_00000008", "step_00000012"]
    read_checkpoint(out / "checkpoints" / "step_00000008")  # it was saved anew


def test_two_processes_take_up_the_file_of_one(one: Path, pictures: Path, tmp_path: Path) -> None:
    out = _cut(one, tmp_path / "run", step=8)
    complete(*_words(pictures, out, FSDP, "--resume"), processes=2)
    assert losses(out) == pytest.approx(losses(one), rel=1e-4)
    assert _names(out)[-1] == "step_00000012"
    _assert_close(*(load_file(run / "encoder.safetensors") for run in (out, one)))


def test_a_worker_that_is_killed_is_started_again_and_changes_not_one_bit(
    two: Path, pictures: Path, tmp_path: Path
) -> None:
    out, place = tmp_path / "run", tmp_path / "pids"
    words = _words(pictures, out, FSDP, "encoder.drop_path=0.2", "--resume", f"target={_dying(place, step=13)}")
    done = complete(*words, processes=2, restarts=1)
    assert len(list(place.iterdir())) == 1, "nobody was killed"
    assert re.search(r"process 1 of 2 no longer answers", done.stderr)
    assert done.stderr.count("Traceback (most recent call last)") == 0
    assert timeless(rows(out)) == timeless(rows(two))
    ours, theirs = (read_checkpoint(run / "checkpoints" / "step_00000012").tensors for run in (out, two))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())
    ours, theirs = (load_file(run / "encoder.safetensors") for run in (out, two))
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())


def test_fine_tuning_in_parts_learns_and_judges_as_one_process(one: Path, labelled: Path, tmp_path: Path) -> None:
    settings = {
        "drop_path": "0",
        "ema": "0.9",
        "batch": "4 images",
        "data.held_out": "0.3",
        "schedule.duration": "6 steps",
        "schedule.warmup": "2 steps",
        "machine.micro_batch": "1 images",  # so that one process judges more batches than the other
        "output.log_every": "1 steps",
        "output.evaluate_every": "3 steps",
        "output.progress": "false",
    }
    words = ("finetune", str(one), "--data", str(labelled), *(f"{name}={value}" for name, value in settings.items()))
    alone, spread = tmp_path / "alone", tmp_path / "spread"
    complete(*words, "--out", str(alone))
    complete(*words, "--out", str(spread), FSDP, "machine.checkpointing=blocks", processes=2)
    result = [json.loads((run / "result.json").read_text()) for run in (spread, alone)]
    assert result[0]["images"] == result[1]["images"] == 5
    assert result[0] == pytest.approx(result[1], rel=1e-4)
    assert losses(spread) == pytest.approx(losses(alone), rel=1e-4)
    _assert_close(*(load_file(run / "classifier.safetensors") for run in (spread, alone)))


def _dying(place: Path, *, step: int) -> str:
    """A target at whose nth call the second process kills itself, once."""
    return f"{{kind: 'tasks.own_parts:DyingTarget', place: '{place}', call: {step}}}"
