from typing import Any

import pytest

from reference.schedules import cosine, multistep, warmup
from simmim.config import load
from simmim.engine.optimizer import OptimizerConfig
from simmim.engine.schedule import Schedule, ScheduleConfig

PEAK, START, FLOOR = 8e-4, 4e-6, 4e-5


def schedule_of(scale: float = 1.0, **settings: Any) -> Schedule:
    block = {"duration": "100 epochs", "warmup": "10 epochs", "warmup_lr": START, "min_lr": FLOOR} | settings
    config = load(ScheduleConfig, block)
    return Schedule(config, peak_lr=PEAK * scale, lr_scale=scale, steps_per_epoch=7)


@pytest.mark.parametrize("decay", ["cosine", "constant"])
def test_the_warm_up_is_a_straight_line_that_ends_at_the_peak(decay: str) -> None:
    schedule = schedule_of(decay=decay)
    assert (schedule.warmup_steps, schedule.total_steps) == (70, 700)
    for step in range(70):
        assert schedule.lr(step) == pytest.approx(warmup(step, steps=70, start=START, peak=PEAK), rel=1e-12)
    assert schedule.lr(0) == START
    assert schedule.lr(70) == pytest.approx(PEAK)


def test_the_cosine_runs_over_the_steps_behind_the_warm_up() -> None:
    schedule = schedule_of(cosine_from="warmup")
    for step in range(70, 700):
        expected = cosine(step - 70, total=630, peak=PEAK, floor=FLOOR)
        assert schedule.lr(step) == pytest.approx(expected, rel=1e-12)
    assert schedule.lr(700) == pytest.approx(FLOOR)


@pytest.mark.parametrize(("epochs", "kept"), [(10, 0.976), (20, 0.905)])
def test_the_official_cosine_is_on_its_way_where_the_warm_up_ends(epochs: int, kept: float) -> None:
    schedule = schedule_of(cosine_from="start", warmup=f"{epochs} epochs", min_lr=0.0)
    for step in range(epochs * 7, 700):
        assert schedule.lr(step) == pytest.approx(cosine(step, total=700, peak=PEAK, floor=0.0), rel=1e-12)
    assert schedule.lr(epochs * 7) / PEAK == pytest.approx(kept, abs=5e-4)


def test_the_official_cosine_is_that_of_timm() -> None:
    import torch
    from timm.scheduler.cosine_lr import CosineLRScheduler

    parameter = torch.nn.Parameter(torch.zeros(1))
    theirs = CosineLRScheduler(
        torch.optim.SGD([parameter], lr=PEAK),
        t_initial=700,
        lr_min=FLOOR,
        warmup_lr_init=START,
        warmup_t=70,
        cycle_limit=1,
        t_in_epochs=False,
    )
    ours = schedule_of(cosine_from="start")
    for step in range(700):
        theirs.step_update(step)
        assert ours.lr(step) == pytest.approx(theirs.optimizer.param_groups[0]["lr"], rel=1e-9)


@pytest.mark.parametrize("written", [("30 epochs", "60 epochs"), ("60 epochs", "30 epochs"), ("211 steps",)])
def test_a_multistep_schedule_steps_down_at_every_milestone(written: tuple[str, ...]) -> None:
    schedule = schedule_of(decay="multistep", milestones=list(written), factor=0.3)
    milestones = [int(text.split()[0]) * (7 if "epochs" in text else 1) for text in written]
    for step in range(70, 700):
        expected = multistep(step, milestones=milestones, peak=PEAK, factor=0.3)
        assert schedule.lr(step) == pytest.approx(expected, rel=1e-12)


def test_a_constant_schedule_stays_at_its_peak() -> None:
    schedule = schedule_of(decay="constant")
    assert {schedule.lr(step) for step in range(70, 700)} == {PEAK}


def test_every_learning_rate_is_scaled_with_the_batch() -> None:
    scale = OptimizerConfig(lr_for_batch=512).lr_scale(2048)
    assert scale == 4
    one, four = schedule_of(), schedule_of(scale)
    for step in (0, 1, 69, 70, 300, 699):
        assert four.lr(step) == pytest.approx(4 * one.lr(step), rel=1e-12)


def test_no_warm_up_begins_at_the_peak() -> None:
    assert schedule_of(warmup="0 epochs").lr(0) == pytest.approx(PEAK)
    assert schedule_of(warmup="0 steps", decay="constant").lr(0) == PEAK


def test_durations_in_steps_mean_steps() -> None:
    schedule = schedule_of(duration="50 steps", warmup="5 steps")
    assert (schedule.total_steps, schedule.warmup_steps) == (50, 5)
    assert schedule.lr(50) == pytest.approx(FLOOR)


@pytest.mark.parametrize(
    "settings",
    [
        {"decay": "multistep"},
        {"decay": "cosine", "milestones": ["3 epochs"]},
        {"factor": 1.0},
        {"factor": 0.0},
        {"warmup_lr": -1e-6},
        {"min_lr": -1.0},
        {"decay": "linear"},
    ],
)
def test_a_schedule_that_makes_no_sense_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(reversed(settings)).removesuffix("s")):
        schedule_of(**settings)
