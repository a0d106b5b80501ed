"""What --resume takes up, what it refuses, and that nothing is overwritten without it."""

import logging
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import simmim
from tasks.support import assert_same_run, checkpoints, complete, contents, rows, run, timeless

pytestmark = pytest.mark.xdist_group("resume")

SETTINGS: dict[str, Any] = {
    "schedule.duration": "20 steps",
    "schedule.warmup": "3 steps",
    "output.save_every": "4 steps",
    "output.log_every": "1 steps",
    "output.progress": False,
    "machine.micro_batch": "8 images",
    "encoder.drop_path": 0.2,
}

Train = Callable[..., Path]


@pytest.fixture
def train(pictures: Path) -> Train:
    def start(out: Path, *, data: Path | None = None, resume: bool = False, **changed: Any) -> Path:
        settings = {**SETTINGS, **{name.replace("__", "."): value for name, value in changed.items()}}
        simmim.pretrain("tiny", data=data or pictures, out=out, seed=1, resume=resume, settings=settings)
        return out

    return start


@pytest.fixture(scope="module")
def finished(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that was never cut."""
    out = tmp_path_factory.mktemp("resume") / "run"
    simmim.pretrain("tiny", data=pictures, out=out, seed=1, settings=SETTINGS)
    return out


@pytest.fixture
def cut(finished: Path, tmp_path: Path) -> Path:
    """The same run as it lay there when it was cut at step 18: checkpoints of steps 12 and 16."""
    out = tmp_path / "cut"
    shutil.copytree(finished, out)
    (out / "encoder.safetensors").unlink()
    checkpoints(out)[-1].unlink()
    lines = (out / "metrics.jsonl").read_text().splitlines(keepends=True)
    (out / "metrics.jsonl").write_text("".join(lines[:18]))
    return out


@pytest.fixture
def warnings_said() -> Iterator[list[str]]:
    """What the program warns of while it runs in this process."""
    said: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.levelno >= logging.WARNING:
                said.append(record.getMessage())

    listener = Listener()
    logging.getLogger("simmim").addHandler(listener)
    yield said
    logging.getLogger("simmim").removeHandler(listener)


def _truncate(path: Path) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) * 2 // 3])


def _flip_a_byte(path: Path) -> None:
    whole = bytearray(path.read_bytes())
    whole[len(whole) // 2] ^= 1
    path.write_bytes(whole)


def _empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [_truncate, _flip_a_byte, _empty])
def test_a_damaged_newest_checkpoint_is_passed_over_with_a_warning_and_the_end_is_the_same(
    damage: Callable[[Path], None], cut: Path, finished: Path, train: Train, warnings_said: list[str]
) -> None:
    newest = checkpoints(cut)[-1]
    assert newest.name == "step_00000016.safetensors"
    damage(newest)
    train(cut, resume=True)
    assert any(newest.name in text for text in warnings_said)
    assert_same_run(cut, finished)


def test_the_warning_of_a_damaged_checkpoint_reaches_the_person(cut: Path, finished: Path, pictures: Path) -> None:
    newest = checkpoints(cut)[-1]
    _flip_a_byte(newest)
    words = [f"{name}={str(value).lower() if value is False else value}" for name, value in SETTINGS.items()]
    done = complete("pretrain", "tiny", "--data", str(pictures), "--out", str(cut), "--seed", "1", *words, "--resume")
    assert newest.name in done.stderr
    assert "damaged" in done.stderr
    assert_same_run(cut, finished)


def test_where_every_checkpoint_is_damaged_the_error_says_so_and_nothing_is_lost(cut: Path, train: Train) -> None:
    for path in checkpoints(cut):
        _truncate(path)
    before = contents(cut)
    with pytest.raises(ValueError, match=r"checkpoints.*can be read") as error:
        train(cut, resume=True)
    assert str(cut) in str(error.value)
    assert contents(cut) == before


def test_a_run_cut_before_its_first_checkpoint_begins_again(cut: Path, finished: Path, train: Train) -> None:
    for path in checkpoints(cut):
        path.unlink()
    train(cut, resume=True)
    assert_same_run(cut, finished)


def test_resuming_a_run_that_is_not_there_begins_it(tmp_path: Path, finished: Path, train: Train) -> None:
    assert_same_run(train(tmp_path / "new" / "run", resume=True), finished)


def test_resuming_a_finished_run_changes_nothing(finished: Path, tmp_path: Path, train: Train) -> None:
    out = tmp_path / "run"
    shutil.copytree(finished, out)
    before = contents(out)
    train(out, resume=True)
    assert contents(out) == before


def test_a_run_is_not_overwritten_unless_it_is_resumed(finished: Path, train: Train) -> None:
    before = {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()}
    with pytest.raises(ValueError, match=r"already holds a run.*--resume"):
        train(finished)
    assert {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()} == before


def test_a_folder_that_holds_other_things_is_not_written_into(tmp_path: Path, train: Train) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(ValueError, match=r"not empty.*thesis\.tex"):
        train(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_run_of_a_version_with_fewer_settings_goes_on(cut: Path, train: Train) -> None:
    recipe = cut / "recipe.yaml"
    tree = yaml.safe_load(recipe.read_text(encoding="utf-8"))
    assert tree["encoder"].pop("visible_blocks") == 0
    assert tree["data"].pop("invalid") is None
    recipe.write_text(yaml.safe_dump(tree), encoding="utf-8")
    train(cut, resume=True)
    assert (cut / "encoder.safetensors").is_file()


def test_resuming_with_another_recipe_is_refused_and_every_difference_named(cut: Path, train: Train) -> None:
    before = contents(cut)
    with pytest.raises(ValueError, match="another recipe") as error:
        train(cut, resume=True, masking__ratio=0.5, schedule__duration="30 steps")
    for word in ("masking.ratio", "0.6", "0.5", "schedule.duration", "20 steps", "30 steps"):
        assert word in str(error.value)
    assert "optimizer" not in str(error.value)
    assert contents(cut) == before


@pytest.mark.parametrize("change", ["one more", "one less", "renamed"])
def test_resuming_with_changed_data_is_refused(change: str, pictures: Path, tmp_path: Path, train: Train) -> None:
    data, out = tmp_path / "data", tmp_path / "run"
    shutil.copytree(pictures, data)
    train(out, data=data)
    first = sorted(data.iterdir())[0]
    if change == "one more":
        shutil.copy(first, data / "more.png")
    elif change == "one less":
        first.unlink()
    else:
        first.rename(data / "zzz.png")
    before = contents(out)
    with pytest.raises(ValueError, match="data changed"):
        train(out, data=data, resume=True)
    assert contents(out) == before


def test_resuming_on_another_machine_with_other_output_is_allowed(cut: Path, finished: Path, train: Train) -> None:
    train(
        cut,
        resume=True,
        machine__micro_batch="4 images",
        machine__workers=1,
        output__log_every="2 steps",
        output__keep=1,
    )
    reports = rows(cut)
    assert [row["step"] for row in reports] == [*range(1, 17), 18, 20]
    assert timeless(reports[:16]) == timeless(rows(finished)[:16])
    assert reports[-1]["loss"] == pytest.approx(sum(row["loss"] for row in rows(finished)[18:]) / 2, rel=0.05)
    assert len(checkpoints(cut)) == 1


@pytest.mark.parametrize("name", ["1e3", "09", "no", "12:30", "a: b", "über"])
def test_data_in_a_folder_of_any_name_can_be_resumed(
    name: str, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / name).symlink_to(pictures)
    monkeypatch.chdir(tmp_path)
    config = simmim.resolve("tiny", extra={"data.source": name})
    saved = tmp_path / "recipe.yaml"
    from simmim.config import write_yaml

    saved.write_text(write_yaml(config), encoding="utf-8")
    assert simmim.resolve(saved) == config


def test_two_commands_do_not_write_one_folder(finished: Path, pictures: Path, tmp_path: Path) -> None:
    import fcntl

    out = tmp_path / "run"
    shutil.copytree(finished, out)
    before = contents(out)
    with (out / ".lock").open("a") as lock:  # as the other command holds it
        fcntl.flock(lock, fcntl.LOCK_EX)
        words = [f"{name}={str(value).lower() if value is False else value}" for name, value in SETTINGS.items()]
        process = run("pretrain", "tiny", "--data", str(pictures), "--out", str(out), "--seed", "1", *words, "--resume")
    assert process.process.returncode == 2
    assert "another process" in process.stderr
    assert contents(out) == before
