"""A bar for an examination: which stage it is in, and how long that may still take."""

import sys
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from simmim.engine.progress import duration_text


class Stages:
    """Drawn on a terminal, silent elsewhere: an examination takes less than a minute."""

    def __init__(self) -> None:
        console = Console(file=sys.stderr)
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[said]}"),
        )
        self._progress = Progress(*columns, console=console, disable=not console.is_terminal, transient=True)
        self._task = self._progress.add_task("", total=None, said="")
        self._begun, self._limit = time.monotonic(), 0.0

    def __enter__(self) -> "Stages":
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def enter(self, stage: str, *, seconds: float = 0.0) -> None:
        """Begin a stage; `seconds` is the most it may take, 0 where that is not known."""
        said = f"at most {duration_text(seconds)}" if seconds else ""
        self._begun, self._limit = time.monotonic(), seconds
        self._progress.update(self._task, description=stage, total=None, completed=0, said=said)

    def tell(self, done: int, total: int) -> None:
        """Move the bar within the stage."""
        spent = time.monotonic() - self._begun
        left = min(spent / done * (total - done), max(self._limit - spent, 0.0))
        self._progress.update(self._task, total=total, completed=done, said=f"{duration_text(left)} left")
