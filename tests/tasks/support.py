"""What the tests of whole runs share: images, real processes that can be cut, and how two runs are compared."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

TESTS = Path(__file__).parents[1]
TIMES = ("images_per_second", "data_wait", "memory_gib", "gpu_memory_gib")
"""What a report says of the machine and not of the run."""

ONE_THREAD = {"OMP_NUM_THREADS": "1"}
"""Tests run side by side; threads that wait for each other's turn would take minutes. Equal for runs that are compared."""

Row = dict[str, Any]


# ------------------------------------------------------------------------------------------------------------------ images


def picture(seed: int, height: int = 100, width: int = 150) -> Image.Image:
    """Discs on smooth noise."""
    generator = np.random.default_rng(seed)
    low = generator.integers(0, 256, (max(height // 16, 2), max(width // 16, 2), 3), dtype=np.uint8)
    image = Image.fromarray(low).resize((width, height), Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(image)
    for _ in range(3):
        x, y, r = (
            generator.integers(0, width),
            generator.integers(0, height),
            generator.integers(4, max(height // 2, 5)),
        )
        draw.ellipse((x - r, y - r, x + r, y + r), fill=tuple(int(value) for value in generator.integers(0, 256, 3)))
    return image


def folder_of_pictures(folder: Path, count: int, *, height: int = 100, width: int = 150) -> Path:
    folder.mkdir(parents=True)
    for number in range(count):
        picture(number, height, width).save(folder / f"{number:04d}.png", compress_level=1)
    return folder


# --------------------------------------------------------------------------------------------------------------- processes


def command(*words: str, processes: int = 1, restarts: int = 0) -> list[str]:
    if processes == 1:
        return [sys.executable, "-m", "simmim", *words]
    launcher = Path(sys.executable).with_name("torchrun")
    return [
        str(launcher),
        "--nproc-per-node",
        str(processes),
        "--master-port",
        str(free_port()),
        "--max-restarts",
        str(restarts),
        "-m",
        "simmim",
        *words,
    ]


def free_port() -> int:
    import socket

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


class Process:
    """A command that runs; what it says goes to files, so that nothing waits for a pipe."""

    def __init__(
        self,
        *words: str,
        processes: int = 1,
        restarts: int = 0,
        cwd: Path | None = None,
        python_path: Path | None = None,
        **environment: str,
    ) -> None:
        place = Path(tempfile.mkdtemp(prefix="simmim-said-"))
        self._out, self._err = place / "out", place / "err"
        paths = [str(path) for path in (python_path, TESTS, os.environ.get("PYTHONPATH")) if path]
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self.process = subprocess.Popen(
                command(*words, processes=processes, restarts=restarts),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                cwd=cwd,
                env={**os.environ, **ONE_THREAD, "PYTHONPATH": os.pathsep.join(paths), **environment},
                start_new_session=True,
            )

    @property
    def stdout(self) -> str:
        return self._out.read_text(encoding="utf-8", errors="replace")

    @property
    def stderr(self) -> str:
        return self._err.read_text(encoding="utf-8", errors="replace")

    def wait(self, seconds: float = 180) -> int:
        try:
            return self.process.wait(seconds)
        finally:
            if self.process.poll() is None:
                self.kill_all()

    def until(self, reached: Callable[[], bool], seconds: float = 180) -> None:
        """Wait for a moment in the life of the process; it must still be alive then."""
        end = time.monotonic() + seconds
        while not reached():
            assert self.process.poll() is None, f"ended too early with {self.process.returncode}:\n{self.stderr}"
            assert time.monotonic() < end, f"waited in vain:\n{self.stderr}"
            time.sleep(0.002)

    def kill_all(self) -> None:
        """SIGKILL to the process and all that it started."""
        family = [self.process.pid, *descendants(self.process.pid)]
        for pid in family:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait(30)


def run(*words: str, processes: int = 1, restarts: int = 0, cwd: Path | None = None, **environment: str) -> Process:
    """Run a command to its end."""
    process = Process(*words, processes=processes, restarts=restarts, cwd=cwd, **environment)
    process.wait()
    return process


def complete(*words: str, processes: int = 1, restarts: int = 0, **environment: str) -> Process:
    """Run a command that must succeed."""
    process = run(*words, processes=processes, restarts=restarts, **environment)
    assert process.process.returncode == 0, process.stderr
    assert "Traceback" not in process.stderr
    return process


def descendants(pid: int) -> list[int]:
    parents: dict[int, int] = {}
    for place in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parents[int(place.parent.name)] = int(place.read_text().rpartition(")")[2].split()[1])
    found, front = list[int](), [pid]
    while front:
        front = [child for child, parent in parents.items() if parent in front]
        found += front
    return found


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


# --------------------------------------------------------------------------------------------------------------- comparing


def lines_in(run: Path) -> int:
    with contextlib.suppress(FileNotFoundError):
        return (run / "metrics.jsonl").read_bytes().count(b"\n")
    return 0


def rows(run: Path) -> list[Row]:
    """The reports of a run. Words such as NaN, which are no JSON, are refused."""
    text = (run / "metrics.jsonl").read_text(encoding="utf-8")
    return [json.loads(line, parse_constant=_refuse) for line in text.splitlines()]


def _refuse(word: str) -> None:
    raise AssertionError(f"{word} is not JSON")


def timeless(reports: list[Row]) -> list[Row]:
    return [{name: value for name, value in row.items() if name not in TIMES} for row in reports]


def losses(run: Path) -> list[float]:
    return [row["loss"] for row in rows(run)]


def checkpoints(run: Path) -> list[Path]:
    return sorted((run / "checkpoints").glob("step_*.safetensors"))


def assert_same_run(one: Path, other: Path) -> None:
    """Weights, memory of the optimizer, pictures and reports are equal to the last bit."""
    assert timeless(rows(one)) == timeless(rows(other))
    assert (one / "encoder.safetensors").read_bytes() == (other / "encoder.safetensors").read_bytes()
    names = [[path.name for path in sorted((run / "pictures").iterdir())] for run in (one, other)]
    assert names[0] == names[1]
    for name in names[0]:
        assert (one / "pictures" / name).read_bytes() == (other / "pictures" / name).read_bytes()


def contents(run: Path) -> dict[str, bytes]:
    """Every file of a run by name, but for the diary of when it was started: log.txt, its page, the TensorBoard events."""
    return {
        str(path.relative_to(run)): path.read_bytes()
        for path in sorted(run.rglob("*"))
        if path.is_file() and path.name not in ("log.txt", "report.html") and "events" not in path.parts
    }


def words_of(settings: dict[str, Any]) -> Iterator[str]:
    for path, value in settings.items():
        yield f"{path}={value}"


def refusal(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """What a command that cannot be is answered."""
    from simmim.cli import main
    from simmim.cli.app import app

    with pytest.raises(SystemExit) as ended:
        main(lambda: app(words))
    assert ended.value.code == 2
    return capsys.readouterr().err
