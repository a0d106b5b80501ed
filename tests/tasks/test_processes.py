"""Two processes see the images one process sees, under the same masks, and learn the same."""

from pathlib import Path

import pytest

from tasks.support import Process, complete, lines_in, losses, picture, rows

pytestmark = pytest.mark.xdist_group("processes")


@pytest.fixture(scope="module")
def one_and_two(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """The same command in one process with two micro batches a step, and in two processes with one each."""
    root = tmp_path_factory.mktemp("processes")
    for processes in (1, 2):
        notes = root / str(processes)
        notes.mkdir()
        complete(
            *("pretrain", "tiny", "--data", str(pictures), "--out", str(notes / "run"), "seed=5"),
            *(
                "schedule.duration=24 steps",
                "schedule.warmup=5 steps",
                "batch=16 images",
                "machine.micro_batch=8 images",
            ),
            *("machine.workers=1", "output.log_every=1 steps"),
            f"masking={{kind: 'tasks.own_parts:NotingMasking', file: '{notes / 'masks'}'}}",
            f"target={{kind: 'tasks.own_parts:NotingTarget', file: '{notes / 'images'}'}}",
            processes=processes,
        )
    return {processes: root / str(processes) for processes in (1, 2)}


def test_the_losses_agree_at_every_step(one_and_two: dict[int, Path]) -> None:
    one, two = (losses(one_and_two[processes] / "run") for processes in (1, 2))
    assert len(one) == 24
    assert two == pytest.approx(one, rel=1e-4)
    norms = [[row["gradient_norm"] for row in rows(one_and_two[processes] / "run")] for processes in (1, 2)]
    assert norms[1] == pytest.approx(norms[0], rel=1e-3)


def test_every_step_shows_the_same_images_in_the_same_order(one_and_two: dict[int, Path]) -> None:
    alone = (one_and_two[1] / "images.0").read_text().split()
    first, second = ((one_and_two[2] / f"images.{rank}").read_text().split() for rank in (0, 1))
    assert len(alone) == 24 * 16
    assert len(set(alone)) > 100, "the images are no different from one another, so their order shows nothing"
    for step in range(24):
        mine = slice(step * 8, step * 8 + 8)
        assert alone[step * 16 : step * 16 + 16] == first[mine] + second[mine]


def test_every_step_draws_the_same_masks_in_every_process(one_and_two: dict[int, Path]) -> None:
    alone = [line for line in (one_and_two[1] / "masks.0").read_text().splitlines() if line.startswith("16 ")]
    assert len(set(alone)) == 24
    for rank in (0, 1):
        lines = (one_and_two[2] / f"masks.{rank}").read_text().splitlines()
        assert [line for line in lines if line.startswith("16 ")] == alone


def test_the_files_a_run_leaves_are_written_once(one_and_two: dict[int, Path]) -> None:
    names = [
        {str(path.relative_to(place / "run")) for path in (place / "run").rglob("*")} for place in one_and_two.values()
    ]
    without_events = [{name for name in found if "tfevents" not in name} for found in names]
    assert without_events[0] == without_events[1]
    assert [row["step"] for row in rows(one_and_two[2] / "run")] == list(range(1, 25))


def test_too_many_bad_files_stop_all_processes_with_one_clear_sentence(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(32):
        picture(number, 70, 70).save(folder / f"{number}.jpg")
    for number in range(8):
        whole = (folder / f"{number}.jpg").read_bytes()
        (folder / f"{number}.jpg").write_bytes(whole[: len(whole) // 2])
    process = Process(
        *("pretrain", "tiny", "--data", str(folder), "--out", str(tmp_path / "run"), "schedule.duration=400 steps"),
        *("output.log_every=1 steps", "machine.micro_batch=8 images"),
        processes=2,
    )
    assert process.wait(90) != 0
    assert process.stderr.count("more than data.bad_share allows") == 1
    assert "of 32 files" in process.stderr
    assert "simmim/tasks/" not in process.stderr, "a traceback of ours; torchrun adds one of its own"
    assert lines_in(tmp_path / "run") < 10
