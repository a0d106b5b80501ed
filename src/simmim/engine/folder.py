"""The folder of a run: what lies where, and that one run at a time writes it."""

import fcntl
import shutil
import time
from pathlib import Path
from typing import IO

from pydantic import Field

from simmim.config import Settings
from simmim.engine.trackers import TrackerName
from simmim.files import room_on_disk
from simmim.units import Duration

_BEFORE_THE_RECIPE = {".lock", "log.txt", "checkpoints", "bad_files.txt"}  # all that a run leaves that never began
_LOCK_PATIENCE_SECONDS = 20


class OutputConfig(Settings, frozen=True):
    """What a run writes, and how often. Nothing here changes the result."""

    log_every: Duration = Duration(amount=50, unit="steps")
    """Time between two reports: a line of metrics.jsonl, of log.txt and of the TensorBoard events."""
    save_every: Duration = Duration(amount=1, unit="epochs")
    """Time between two checkpoints."""
    evaluate_every: Duration = Duration(amount=5, unit="epochs")
    """Time between two evaluations; in pre-training, between two pictures."""
    keep: int = Field(default=3, ge=1)
    """How many checkpoints are kept, the newest ones."""
    pictures: int = Field(default=8, ge=1)
    """How many images a picture shows."""
    trackers: tuple[TrackerName, ...] = ("tensorboard",)
    """What the numbers of reports also go to: tensorboard, wandb, mlflow. A resumed run goes on in all of them."""
    progress: bool = True
    """Whether progress is shown to the person."""


class RunError(ValueError):
    """A run that cannot start or go on, said to a person."""


class RunFolder:
    """The places in the folder of a run."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.recipe = self.path / "recipe.yaml"
        self.derived = self.path / "derived.json"
        self.metrics = self.path / "metrics.jsonl"
        self.log = self.path / "log.txt"
        self.bad_files = self.path / "bad_files.txt"
        self.checkpoints = self.path / "checkpoints"
        self.pictures = self.path / "pictures"
        self.events = self.path / "events"
        self._lock: IO[str] | None = None

    def __str__(self) -> str:
        return str(self.path)

    def open(self, *, resume: bool) -> None:
        """Make the folder ours, or refuse to overwrite what is there.

        Raises:
            RunError: where the folder holds something and `resume` was not asked for, or another process is writing it.
        """
        if not resume:
            self._refuse_to_overwrite()
        with room_on_disk(self.path, "the folder of the run"):
            self.checkpoints.mkdir(parents=True, exist_ok=True)
        self._lock = self._take_lock()
        for leftover in list(self.path.rglob(".*.part")):
            if leftover.is_dir():  # of a checkpoint to which many processes brought their part
                shutil.rmtree(leftover)
            else:
                leftover.unlink(missing_ok=True)

    def _refuse_to_overwrite(self) -> None:
        if not self.path.exists():
            return
        if not self.path.is_dir():
            raise RunError(f"{self} is a file; --out takes a folder")
        if self.recipe.exists():
            raise RunError(f"{self} already holds a run; continue it with --resume, or choose another --out")
        found = sorted(item.name for item in self.path.iterdir() if item.name not in _BEFORE_THE_RECIPE)
        if found or any(self.checkpoints.glob("*")):
            raise RunError(f"{self} is not empty (it holds {', '.join(found[:3])}); choose another --out")

    def _take_lock(self) -> IO[str]:
        """Hold the folder while this process lives; the kernel lets go of it however the process ends."""
        lock = (self.path / ".lock").open("a")
        patience = time.monotonic() + _LOCK_PATIENCE_SECONDS
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > patience:
                    lock.close()
                    raise RunError(f"another process is writing {self}; wait for it, or choose another --out") from None
                time.sleep(0.2)
            else:
                return lock

    def close(self) -> None:
        """Let go of the folder."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None
