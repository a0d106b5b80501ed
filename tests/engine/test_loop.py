import ast
import inspect
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from reference.adamw import AdamW
from reference.toy import Toy, in_parts, make_run, rows_of, weights_of
from simmim.engine import loop
from simmim.engine.checkpoint import checkpoint_paths, pack, read_checkpoint
from simmim.engine.folder import RunError
from simmim.engine.interruption import Interrupted
from simmim.engine.metrics import MetricsLog, read_metrics
from simmim.engine.run import Run
from simmim.tensors import DamagedFile


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def train(run: Run) -> list[dict[str, Any]]:
    """Train with a log, and read it."""
    log = MetricsLog(run.folder.metrics, after_step=run.step)
    try:
        loop.train(run, log)
    finally:
        log.close()
    return read_metrics(run.folder.metrics)


def test_the_loop_is_one_page() -> None:
    (train_,) = [
        n for n in ast.parse(inspect.getsource(loop)).body if isinstance(n, ast.FunctionDef) and n.name == "train"
    ]
    assert train_.end_lineno is not None
    assert train_.end_lineno - train_.lineno < 80


# ------------------------------------------------------------------------------------------------------------ the gradient


@pytest.mark.parametrize("sizes", [(12,), (6, 6), (5, 5, 2), (1, 11)])
@pytest.mark.parametrize("clip_norm", [None, 0.1])
def test_micro_batches_of_any_sizes_make_the_step_of_the_whole_batch(
    tmp_path: Path, sizes: tuple[int, ...], clip_norm: float | None
) -> None:
    run = make_run(tmp_path, in_parts(sizes), clip_norm=clip_norm)
    weight, bias = (p.detach().double().numpy().copy() for p in run.bare.parameters())
    by_hand = AdamW(np.append(weight[0], bias), decay=0.1), AdamW(bias, decay=0.0)
    norms = []
    for step in range(6):
        rows, wanted = (part.double().numpy() for part in rows_of(step))
        w, b = by_hand[0].weight[:4], by_hand[1].weight
        errors = rows @ w + b - wanted
        gradient = np.append(2 * (errors @ rows) / 12, 2 * errors.sum() / 12)
        norms.append(np.linalg.norm(gradient))
        if clip_norm is not None:
            gradient *= min(1.0, clip_norm / norms[-1])
        by_hand[0].step(gradient, run.schedule.lr(step))
        by_hand[1].step(gradient[4:], run.schedule.lr(step))
    reports = train(run)
    assert np.abs(run.bare.layer.weight.detach().numpy()[0] - by_hand[0].weight[:4]).max() < 1e-6  # type: ignore[union-attr]
    assert np.abs(run.bare.layer.bias.detach().numpy() - by_hand[1].weight).max() < 1e-6  # type: ignore[union-attr]
    assert [row["gradient_norm"] for row in reports] == pytest.approx(norms, rel=1e-5)


def test_the_reported_loss_is_the_mean_over_the_steps_since_the_last_report(tmp_path: Path) -> None:
    every = train(make_run(tmp_path / "every", in_parts((5, 7))))
    third = train(make_run(tmp_path / "third", in_parts((12,)), output={"log_every": "3 steps"}))
    assert [row["step"] for row in third] == [3, 6]
    for number, row in enumerate(third):
        mean = sum(one["loss"] for one in every[3 * number : 3 * number + 3]) / 3
        assert row["loss"] == pytest.approx(mean, rel=1e-5)
    assert [row["epoch"] for row in third] == [1.0, 2.0]
    assert [row["skipped_steps"] for row in third] == [0, 0]


def test_evaluations_and_checkpoints_come_when_they_are_due_and_at_the_end(tmp_path: Path) -> None:
    judged: list[int] = []

    def evaluate(step: int) -> dict[str, float]:
        judged.append(step)
        return {"accuracy": step / 10}

    output = {"log_every": "4 steps", "evaluate_every": "3 steps", "save_every": "2 steps", "keep": 10}
    run = make_run(tmp_path, in_parts((12,)), steps=7, evaluate=evaluate, output=output)
    reports = train(run)
    assert judged == [3, 6, 7]
    assert [(row["step"], row.get("accuracy")) for row in reports] == [(3, 0.3), (4, None), (6, 0.6), (7, 0.7)]
    assert [int(path.stem[5:]) for path in checkpoint_paths(run.folder.checkpoints)] == [7, 6, 4, 2]


# --------------------------------------------------------------------------------------------------------- what is not finite


def _broken_at(*steps: int) -> Any:
    def data(step: int) -> tuple[Tensor, Tensor]:
        rows, wanted = rows_of(step)
        if step in steps:
            rows[7, 2] = float("nan") if step % 2 else float("inf")
        return rows, wanted

    return data


def test_a_step_that_is_not_finite_is_skipped_and_counted(tmp_path: Path) -> None:
    seen: dict[int, dict[str, Tensor]] = {}
    run = make_run(tmp_path, in_parts((6, 6), _broken_at(2)), after_step=lambda step: seen.update({step: _memory(run)}))
    reports = train(run)
    assert equal(seen[3], seen[2])  # weights and the optimizer's memory
    assert not equal(seen[4], seen[3])
    assert run.skipped == 1
    assert [row["skipped_steps"] for row in reports] == [0, 0, 1, 1, 1, 1]
    assert [row["loss"] is None for row in reports] == [False, False, True, False, False, False]


def _memory(run: Run) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in pack(run.bare, run.optimizer).items()}


def test_a_finite_loss_whose_gradient_is_not_is_skipped_too(tmp_path: Path) -> None:
    run = make_run(tmp_path, in_parts((12,)), steps=1)
    run.bare.layer.weight.register_hook(lambda gradient: gradient * float("inf"))  # type: ignore[union-attr]
    before = weights_of(run)
    train(run)
    assert run.skipped == 1
    assert equal(weights_of(run), before)


def test_a_skipped_step_now_and_then_does_not_stop_a_run(tmp_path: Path) -> None:
    run = make_run(tmp_path, in_parts((12,), _broken_at(0, 1, 3, 4, 6, 7)), steps=9, max_skipped=3)
    train(run)
    assert (run.step, run.skipped, run.skipped_in_a_row) == (9, 6, 0)


def test_too_many_in_a_row_stop_the_run_with_a_replay_file(tmp_path: Path) -> None:
    data = _broken_at(3, 4, 5)
    run = make_run(
        tmp_path, in_parts((6, 6), data), steps=9, max_skipped=3, output={"save_every": "1 steps", "keep": 2}
    )
    seen: dict[int, dict[str, Tensor]] = {}
    run.after_step = lambda step: seen.update({step: weights_of(run)})
    with pytest.raises(RunError, match=r"not finite in 3 steps in a row.*stopped at step 5\b.*replay_step_00000005"):
        train(run)
    replay = read_checkpoint(tmp_path / "replay_step_00000005.safetensors")
    assert equal(replay.below("model"), seen[3])
    rows, wanted = data(5)
    assert torch.equal(replay.below("input")["0"].nan_to_num(), rows[6:].nan_to_num())
    assert torch.equal(replay.below("input")["1"], wanted[6:])
    assert (replay.state["step"], replay.state["name"]) == (5, "toy")
    toy = Toy()
    toy.load_state_dict(replay.below("model"))
    assert not toy(*replay.below("input").values()).loss.isfinite()
    assert all(
        tensor.isfinite().all()
        for tensor in read_checkpoint(checkpoint_paths(run.folder.checkpoints)[0]).tensors.values()
    )


# ------------------------------------------------------------------------------------------------------------ cut and go on


@pytest.mark.parametrize("cut_at", [1, 2, 3, 5])
def test_a_run_that_was_cut_goes_on_as_if_it_had_not(tmp_path: Path, cut_at: int) -> None:
    output = {"log_every": "2 steps", "save_every": "1 steps"}
    whole = make_run(tmp_path / "whole", in_parts((5, 7)), noise=0.5, output=output)
    wanted = train(whole)

    def cut(step: int) -> None:
        if step == cut_at + 1:
            raise KeyboardInterrupt

    first = make_run(tmp_path / "cut", in_parts((5, 7)), noise=0.5, output=output, after_step=cut)
    with pytest.raises(KeyboardInterrupt):
        train(first)
    second = make_run(tmp_path / "cut", in_parts((5, 7)), noise=0.5, output=output)
    torch.nn.init.zeros_(second.bare.layer.weight)  # type: ignore[union-attr]
    second.restore()
    assert second.step == cut_at
    found = train(second)
    assert equal(_memory(second), _memory(whole))
    timeless = ("images_per_second", "data_wait", "memory_gib")
    assert [{k: v for k, v in row.items() if k not in timeless} for row in found] == [
        {k: v for k, v in row.items() if k not in timeless} for row in wanted
    ]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_step_saves_and_is_told(
    tmp_path: Path, number: int, capfd: pytest.CaptureFixture[str]
) -> None:
    before = signal.getsignal(number)
    run = make_run(
        tmp_path, in_parts((12,)), begin_step=lambda step: os.kill(os.getpid(), number) if step == 2 else None
    )
    with pytest.raises(Interrupted, match="stopped at step 3 of 6, and saved") as caught:
        train(run)
    assert caught.value.exit_code == 128 + number
    assert [path.stem for path in checkpoint_paths(run.folder.checkpoints)] == ["step_00000003"]
    assert signal.getsignal(number) is before
    assert ("Ctrl-C once more ends it at once" in capfd.readouterr().err) == (number == signal.SIGINT)


def test_a_signal_in_the_last_step_finishes_the_run(tmp_path: Path) -> None:
    run = make_run(
        tmp_path, in_parts((12,)), begin_step=lambda step: os.kill(os.getpid(), signal.SIGTERM) if step == 5 else None
    )
    train(run)
    assert run.finished


def test_a_run_that_is_complete_does_nothing_more(tmp_path: Path) -> None:
    train(make_run(tmp_path, in_parts((12,))))
    again = make_run(tmp_path, in_parts((12,)))
    again.restore()
    before, reports = _memory(again), read_metrics(again.folder.metrics)
    assert train(again) == reports
    assert equal(_memory(again), before)


def test_a_file_that_is_no_checkpoint_is_said(tmp_path: Path) -> None:
    (tmp_path / "x.safetensors").write_bytes(b"nothing")
    with pytest.raises(DamagedFile):
        read_checkpoint(tmp_path / "x.safetensors")
