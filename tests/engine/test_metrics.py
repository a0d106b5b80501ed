import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from simmim.engine.metrics import Meter, MetricsLog, read_metrics


def write(folder: Path, rows: list[dict[str, Any]], *, after_step: int = 0) -> Path:
    log = MetricsLog(folder / "metrics.jsonl", after_step=after_step)
    for row in rows:
        log.write(row)
    log.close()
    return folder / "metrics.jsonl"


def test_a_meter_adds_shares_to_steps() -> None:
    meter = Meter()
    for losses, shares, norm in (((1.0, 4.0), (0.25, 0.75), 2.0), ((3.0, 5.0), (0.5, 0.5), 6.0)):
        step = Meter()
        for loss, share in zip(losses, shares, strict=True):
            step.add({"loss": torch.tensor(loss)}, weight=share)
        meter.add_step(step, gradient_norm=torch.tensor(norm))
    assert meter.sums() == {"loss": (0.25 * 1 + 0.75 * 4) + (0.5 * 3 + 0.5 * 5), "gradient_norm": 8.0}
    assert meter.steps == 2


def test_a_meter_adds_in_float64() -> None:
    meter = Meter()
    for _ in range(1000):
        meter.add({"loss": torch.tensor(0.1)})
    assert meter.sums()["loss"] == pytest.approx(1000 * float(torch.tensor(0.1)), rel=1e-14)


def test_a_meter_goes_on_from_what_was_saved_bit_for_bit() -> None:
    meter, values = Meter(), torch.rand(20)
    for value in values[:9]:
        meter.add_step(_step(value), gradient_norm=value)
    again = Meter(**json.loads(json.dumps(meter.state())))
    for value in values[9:]:
        meter.add_step(_step(value), gradient_norm=value)
        again.add_step(_step(value), gradient_norm=value)
    assert again.state() == meter.state()


def _step(value: torch.Tensor) -> Meter:
    step = Meter()
    step.add({"loss": value / 3}, weight=0.7)
    return step


@pytest.mark.parametrize(("value", "finite"), [(1.0, True), (float("nan"), False), (float("-inf"), False)])
def test_a_meter_knows_whether_all_it_has_is_a_number(value: float, finite: bool) -> None:
    meter = Meter()
    assert meter.is_finite()
    meter.add({"loss": torch.tensor(1.0), "other": torch.tensor(value)})
    assert meter.is_finite() == finite


def test_a_meter_keeps_no_graph_alive() -> None:
    weight = torch.ones(1, requires_grad=True)
    meter = Meter()
    meter.add({"loss": (weight * 2).sum()})
    assert not any(torch.as_tensor(value).requires_grad for value in meter._sums.values())


def test_reports_are_lines_and_curves(tmp_path: Path) -> None:
    rows = [{"step": step, "loss": 1 / step, "note": None} for step in (5, 10)]
    path = write(tmp_path, rows)
    assert [json.loads(line) for line in path.read_text().splitlines()] == rows == read_metrics(path)
    events = EventAccumulator(str(tmp_path / "events")).Reload()
    found = [(event.step, event.value) for event in events.Scalars("loss")]
    assert found == [(5, pytest.approx(0.2)), (10, pytest.approx(0.1))]


def test_reports_behind_the_step_from_which_a_run_goes_on_are_written_again(tmp_path: Path) -> None:
    write(tmp_path, [{"step": step, "loss": 1.0 * step} for step in (5, 10, 15, 20)])
    path = write(tmp_path, [{"step": 15, "loss": 0.5}], after_step=12)
    assert [(row["step"], row["loss"]) for row in read_metrics(path)] == [(5, 5.0), (10, 10.0), (15, 0.5)]


def test_a_last_line_that_was_cut_is_dropped(tmp_path: Path) -> None:
    path = write(tmp_path, [{"step": 5, "loss": 1.0}, {"step": 10, "loss": 2.0}])
    whole = path.read_text()
    for length in range(len(whole)):
        path.write_text(whole[:length])
        assert [row["step"] for row in read_metrics(path)] == [5] * (length >= whole.index("\n") + 1)
    path.write_text(whole[:-1])
    write(tmp_path, [{"step": 10, "loss": 3.0}], after_step=5)
    assert [(row["step"], row["loss"]) for row in read_metrics(path)] == [(5, 1.0), (10, 3.0)]
