"""A full disk is a sentence, and loses nothing that was saved."""

import contextlib
import resource
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from safetensors import safe_open

import simmim
from tasks.support import Process, assert_same_run, checkpoints, complete, lines_in, rows

pytestmark = pytest.mark.xdist_group("full disk")

SETTINGS = (
    "schedule.duration=40 steps",
    "output.save_every=3 steps",
    "output.log_every=1 steps",
    "output.evaluate_every=40 steps",
    "output.keep=20",
    "machine.micro_batch=8 images",
)


@pytest.fixture(scope="module")
def roomy(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that had room enough."""
    out = tmp_path_factory.mktemp("roomy") / "run"
    complete(*_words(pictures, out))
    return out


def _words(pictures: Path, out: Path) -> tuple[str, ...]:
    return ("pretrain", "tiny", "--data", str(pictures), "--out", str(out), *SETTINGS)


def _assert_it_said_so_and_lost_nothing(process: Process, out: Path) -> None:
    assert process.wait() == 2
    assert "Traceback" not in process.stderr, process.stderr
    assert "Logging error" not in process.stderr, process.stderr
    assert "full" in process.stderr
    assert str(out) in process.stderr
    assert "--resume" in process.stderr
    assert checkpoints(out), "nothing had been saved, so nothing could be lost"
    for path in checkpoints(out):
        with safe_open(path, framework="pt") as file:
            assert all(bool(file.get_tensor(name).isfinite().all()) for name in file.keys())  # noqa: SIM118
    assert not list(out.rglob("*.part")), "what could not be written takes up the room that is missing"
    simmim.load(out)
    whole = (out / "metrics.jsonl").read_bytes().rpartition(b"\n")[0]  # the last line may be cut
    assert whole.count(b"\n") > 2


def test_files_that_may_not_grow_stop_the_run_which_then_goes_on_as_if_nothing_had_been(
    roomy: Path, pictures: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    process = Process(*_words(pictures, out))
    process.until(lambda: lines_in(out) >= 10)
    limit = 1_000_000  # more than the reports need, less than a checkpoint
    resource.prlimit(process.process.pid, resource.RLIMIT_FSIZE, (limit, limit))
    _assert_it_said_so_and_lost_nothing(process, out)
    complete(*_words(pictures, out), "--resume")
    assert_same_run(out, roomy)


def test_a_diary_and_reports_that_may_not_grow_are_no_traceback(roomy: Path, pictures: Path, tmp_path: Path) -> None:
    """Nothing at all can be written any more, not a line of log.txt."""
    out = tmp_path / "run"
    process = Process(*_words(pictures, out))
    process.until(lambda: lines_in(out) >= 30)
    limit = 3000  # log.txt and the reports are longer already, what is said on the screen is not
    assert (out / "log.txt").stat().st_size > limit
    resource.prlimit(process.process.pid, resource.RLIMIT_FSIZE, (limit, limit))
    _assert_it_said_so_and_lost_nothing(process, out)
    complete(*_words(pictures, out), "--resume")
    assert_same_run(out, roomy)


class _SmallDisk:
    """A disk of some MiB where this user may mount one; elsewhere a limit on the size of files does its work."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir()
        self.mounted = False
        mount = ["mount", "-t", "tmpfs", "-o", "size=13m", "tmpfs", str(path)]
        with contextlib.suppress(OSError):
            self.mounted = subprocess.run(mount, capture_output=True, check=False).returncode == 0

    def fill(self, process: Process, out: Path) -> None:
        if not self.mounted:
            process.until(lambda: lines_in(out) >= 10)
            resource.prlimit(process.process.pid, resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))

    def grow(self) -> None:
        if self.mounted:
            subprocess.run(["mount", "-o", "remount,size=200m", str(self.path)], check=True)

    def close(self) -> None:
        if self.mounted:
            subprocess.run(["umount", "-l", str(self.path)], check=True)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[_SmallDisk]:
    disk = _SmallDisk(tmp_path / "disk")
    yield disk
    disk.close()


def test_a_disk_that_fills_up_stops_the_run_which_goes_on_when_there_is_room(
    roomy: Path, pictures: Path, small_disk: _SmallDisk
) -> None:
    out = small_disk.path / "run"
    process = Process(*_words(pictures, out))
    small_disk.fill(process, out)
    _assert_it_said_so_and_lost_nothing(process, out)
    small_disk.grow()
    complete(*_words(pictures, out), "--resume")
    assert_same_run(out, roomy)
    assert len(rows(out)) == 40
