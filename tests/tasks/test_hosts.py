"""Several hosts, as the scripts start them: they train as one, and what they disagree about is said before it is too late."""

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tasks.support import ONE_THREAD, TESTS, Process, complete, free_port, lines_in, losses

pytestmark = pytest.mark.xdist_group("hosts")

EXAMPLES = TESTS.parent / "examples"
SHORT = ("schedule.duration=4 steps", "schedule.warmup=1 steps", "output.log_every=1 steps", "output.progress=false")


def _on_two_hosts(*words: str, more: tuple[str, ...] = (), folders: tuple[Path, Path]) -> list[tuple[int, str]]:
    """The script on two hosts, which are two folders of this one: how each ended and what it said."""
    settings = {"HOSTS": "2", "FIRST": "127.0.0.1", "PORT": str(free_port()), "GPUS": "1", "RESTARTS": "0"}
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    python_path = os.pathsep.join(filter(None, (str(TESTS), os.environ.get("PYTHONPATH"))))
    environment = {**os.environ, **ONE_THREAD, **settings, "PATH": path, "PYTHONPATH": python_path}
    hosts = [
        subprocess.Popen(
            ["bash", str(EXAMPLES / "several_hosts.sh"), *words, *extra],
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for folder, extra in zip(folders, ((), more), strict=True)
    ]
    said = [host.communicate(timeout=150)[0] for host in hosts]
    return [(host.returncode, text) for host, text in zip(hosts, said, strict=True)]


def _sentences(said: list[tuple[int, str]]) -> list[str]:
    return [line for _, text in said for line in text.splitlines() if line.startswith(("simmim:", "simmim ["))]


@pytest.fixture
def here(tmp_path: Path, pictures: Path) -> Path:
    """A folder in which the images are called `photos`."""
    place = tmp_path / "first"
    place.mkdir()
    (place / "photos").symlink_to(pictures)
    return place


@pytest.mark.parametrize("script", sorted(EXAMPLES.glob("*.sh")), ids=lambda path: path.name)
def test_the_scripts_are_short_and_correct_bash(script: Path) -> None:
    assert len(script.read_text(encoding="utf-8").splitlines()) <= 60
    done = subprocess.run(["bash", "-n", str(script)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_two_hosts_train_as_two_processes_of_one(here: Path, tmp_path: Path) -> None:
    words = ("pretrain", "tiny", "--data", str(here / "photos"), *SHORT)
    hosts = _on_two_hosts(*words, "--out", str(tmp_path / "hosts"), folders=(here, here))
    assert [code for code, _ in hosts] == [0, 0], hosts
    complete(*words, "--out", str(tmp_path / "processes"), processes=2)
    assert losses(tmp_path / "hosts") == losses(tmp_path / "processes")


def test_a_host_that_holds_other_images_ends_the_run_with_one_sentence(here: Path, tmp_path: Path) -> None:
    there = tmp_path / "second"
    shutil.copytree(here, there)
    for path in sorted((there / "photos").iterdir())[:2]:
        path.unlink()
    words = ("pretrain", "tiny", "--data", "photos", "--out", str(tmp_path / "run"), *SHORT)
    hosts = _on_two_hosts(*words, folders=(here, there))
    assert all(code for code, _ in hosts)
    (sentence,) = _sentences(hosts)
    counts = re.search(r"process 1 sees (\d+) images where process 0 sees (\d+)", sentence)
    assert counts is not None, sentence
    assert {counts[1], counts[2]} == {"38", "40"}  # which host is the first is not ours to say
    assert not lines_in(tmp_path / "run")


def test_a_host_that_was_given_another_recipe_ends_the_run_with_one_sentence(here: Path, tmp_path: Path) -> None:
    words = ("pretrain", "tiny", "--data", "photos", "--out", str(tmp_path / "run"), *SHORT)
    hosts = _on_two_hosts(*words, more=("masking.ratio=0.5",), folders=(here, here))
    assert all(code for code, _ in hosts)
    (sentence,) = _sentences(hosts)
    assert re.search(r"masking\.ratio: 0\.[56] in process 0, 0\.[56] in process 1", sentence)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("number", "after"), [(signal.SIGKILL, 5), (signal.SIGSTOP, 0.3)], ids=["killed", "stopped"])
def test_a_process_that_is_lost_is_named_in_one_sentence(
    number: signal.Signals, after: float, pictures: Path, tmp_path: Path
) -> None:
    dying = f"{{kind: 'tasks.own_parts:DyingTarget', place: '{tmp_path / 'pids'}', call: 3, signal: {int(number)}}}"
    words = ("pretrain", "tiny", "--data", str(pictures), "--out", str(tmp_path / "run"), f"target={dying}", *SHORT[1:])
    process = Process(*words, "schedule.duration=400 steps", f"machine.patience_minutes={after}", processes=2)
    if number == signal.SIGSTOP:  # torchrun waits half a minute for it to go
        process.until(lambda: "no longer answers" in process.stderr)
        process.kill_all()
    else:
        assert process.wait(120) != 0
    assert process.stderr.count("process 1 of 2 no longer answers") == 1
    assert "simmim/tasks/" not in process.stderr, "a traceback of ours; torchrun adds one of its own"
    assert 3 <= lines_in(tmp_path / "run") < 10
