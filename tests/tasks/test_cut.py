"""A run killed at any moment and resumed by the same command ends as if nothing had been."""

import os
import signal
import time
from pathlib import Path

import pytest

from tasks.support import (
    Process,
    assert_same_run,
    checkpoints,
    complete,
    descendants,
    is_alive,
    lines_in,
    rows,
    timeless,
)

SETTINGS = (
    "schedule.duration=60 steps",
    "schedule.warmup=5 steps",
    "batch=16 images",
    "data.image_size=[96, 160]",
    "machine.micro_batch=8 images",  # two micro batches a step
    "encoder.drop_path=0.2",  # the layers' own noise matters
    "seed=3",
)
EVERY_STEP = (*SETTINGS, "output.save_every=5 steps", "output.log_every=1 steps", "machine.workers=2")
# Reports span several checkpoints, so most cuts lie in the middle of one.
SELDOM = (*SETTINGS, "output.save_every=3 steps", "output.log_every=7 steps", "machine.workers=1")

# Stands in the process's path: it stops for good where a checkpoint is written but not yet in its place.
_SLOW_DISK = """
import os, time
_fsync = os.fsync
def fsync(fd):
    _fsync(fd)
    name = os.path.basename(os.readlink(f"/proc/self/fd/{fd}"))
    if "step_00000025" in name:
        time.sleep(600)
os.fsync = fsync
"""


def _words(pictures: Path, out: Path, settings: tuple[str, ...]) -> tuple[str, ...]:
    return ("pretrain", "tiny", "--data", str(pictures), "--out", str(out), *settings)


@pytest.mark.xdist_group("cut")
def test_five_kills_change_not_one_bit(pictures: Path, tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    complete(*_words(pictures, whole, EVERY_STEP))
    words = (*_words(pictures, cut, EVERY_STEP), "--resume")
    (tmp_path / "slow").mkdir()
    (tmp_path / "slow" / "sitecustomize.py").write_text(_SLOW_DISK)

    process = Process(*words[:-1])  # during start-up
    process.until(lambda: (cut / ".lock").exists())
    process.kill_all()
    assert lines_in(cut) == 0

    process = Process(*words)  # before the first checkpoint; only this process, its two readers are left to themselves
    process.until(lambda: lines_in(cut) >= 3)
    process.process.kill()
    process.process.wait()
    assert lines_in(cut) < 60

    process = Process(*words, python_path=tmp_path / "slow")  # while a checkpoint is written
    process.until(lambda: any((cut / "checkpoints").glob(".step_00000025*.part")))
    process.kill_all()
    assert [path.name for path in checkpoints(cut)][-1] == "step_00000020.safetensors"

    process = Process(*words)
    process.until(lambda: lines_in(cut) >= 41)
    process.kill_all()
    metrics = cut / "metrics.jsonl"  # as a kill in the middle of writing leaves it
    metrics.write_bytes(metrics.read_bytes() + b'{"step": 4')

    process = Process(*words)
    process.until(lambda: lines_in(cut) >= 58)
    process.kill_all()
    assert not (cut / "encoder.safetensors").exists()

    complete(*words)
    assert_same_run(cut, whole)
    assert not list(cut.rglob("*.part")), "a half written file of a cut run is left behind"


@pytest.mark.xdist_group("cut processes")
def test_two_processes_cut_in_three_ways_change_not_one_bit(pictures: Path, tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    settings = tuple(word.replace("micro_batch=8", "micro_batch=4") for word in SELDOM)
    complete(*_words(pictures, whole, settings), processes=2)
    words = (*_words(pictures, cut, settings), "--resume")

    process = Process(*words, processes=2)  # everything at once
    process.until(lambda: lines_in(cut) >= 2)
    process.kill_all()

    process = Process(*words, processes=2)  # a polite request, which torchrun passes on
    process.until(lambda: lines_in(cut) >= 4)
    process.process.send_signal(signal.SIGTERM)
    assert process.wait() != 0
    assert "and saved" in process.stderr
    assert "--resume" in process.stderr

    process = Process(*words, processes=2)  # torchrun alone: what it started must not go on
    process.until(lambda: lines_in(cut) >= 6)
    orphans = descendants(process.process.pid)
    process.process.kill()
    process.process.wait()
    complete(*words, processes=2)
    assert not any(is_alive(pid) for pid in orphans)
    assert_same_run(cut, whole)


@pytest.mark.xdist_group("cut processes")
def test_processes_whose_torchrun_is_killed_during_start_up_do_not_live_on(pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    settings = ("schedule.duration=100000 steps", "machine.workers=0", "output.log_every=1 steps")
    process = Process(*_words(pictures, out, settings), processes=2)
    process.until(lambda: (out / ".lock").exists())
    orphans = descendants(process.process.pid)
    assert len(orphans) == 2
    process.process.kill()
    process.process.wait()
    end = time.monotonic() + 30
    try:
        while any(is_alive(pid) for pid in orphans) and time.monotonic() < end:
            time.sleep(0.1)
        assert not any(is_alive(pid) for pid in orphans), f"still training after {lines_in(out)} reports"
    finally:
        for pid in filter(is_alive, orphans):
            os.kill(pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def seldom(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that was not asked to stop."""
    out = tmp_path_factory.mktemp("whole") / "run"
    complete(*_words(pictures, out, SELDOM))
    return out


@pytest.mark.xdist_group("signals")
@pytest.mark.parametrize(("number", "whole_group"), [(signal.SIGTERM, True), (signal.SIGINT, False)])
def test_a_run_that_is_asked_to_stop_saves_says_how_to_go_on_and_ends_as_if_it_had_not_been(
    number: signal.Signals, whole_group: bool, seldom: Path, pictures: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    words = _words(pictures, out, SELDOM)
    process = Process(*words)
    process.until(lambda: lines_in(out) >= 3)
    if whole_group:
        os.killpg(process.process.pid, number)
    else:
        process.process.send_signal(number)
    assert process.wait() == 128 + number
    assert "Traceback" not in process.stderr
    saved = int(checkpoints(out)[-1].stem.removeprefix("step_"))
    assert 21 <= saved < 60
    assert f"stopped at step {saved} of 60" in process.stderr
    shown = process.stderr.strip().splitlines()[-1].strip()
    assert shown.startswith("simmim pretrain tiny --data")
    assert shown.endswith("--resume")
    assert str(out) in shown
    assert "'data.image_size=[96, 160]'" in shown, "the command cannot be typed as it is shown"
    complete(*words, "--resume")
    assert_same_run(out, seldom)


@pytest.mark.xdist_group("signals")
def test_a_report_in_whose_middle_a_run_was_cut_is_the_mean_of_all_its_steps(
    seldom: Path, pictures: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    words = _words(pictures, out, SELDOM)
    process = Process(*words)
    process.until(lambda: bool(list((out / "checkpoints").glob("step_*12.safetensors"))))
    process.kill_all()
    saved = int(checkpoints(out)[-1].stem.removeprefix("step_"))
    assert saved % 7 or saved == 12
    complete(*words, "--resume")
    assert timeless(rows(out)) == timeless(rows(seldom))
    assert_same_run(out, seldom)
