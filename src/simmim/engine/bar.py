"""The bar of work that is no training: what is being done, how much of it is done, and how long it still takes."""

import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from simmim.engine.progress import Drawn, duration_text

_QUIET_SECONDS = 10


class Bar(Drawn):
    """Work in stages, one after the other, on stderr.

    On a terminal a bar is drawn; elsewhere a line is written, at most one in ten seconds.
    """

    def __init__(self) -> None:
        console = Console(file=sys.stderr)
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[said]}"),
        )
        self._drawn = console.is_terminal
        self._progress = Progress(*columns, console=console, disable=not self._drawn, transient=True)
        self._task = self._progress.add_task("", total=None, said="")
        self._stage, self._limit = "", 0.0
        self._begun = self._last_line = time.monotonic()

    def enter(self, stage: str, *, seconds: float = 0.0) -> None:
        """Begin a stage; `seconds` is the most it may take, 0 where that is not known."""
        said = f"at most {duration_text(seconds)}" if seconds else ""
        self._stage, self._limit = stage, seconds
        self._begun = time.monotonic()
        self._progress.update(self._task, description=stage, total=None, completed=0, said=said)

    def tell(self, done: int, total: int) -> None:
        """Say how much of the stage is done; what is left is taken to go at the same pace."""
        now = time.monotonic()
        spent = now - self._begun
        left = spent / max(done, 1) * (total - done)
        if self._limit:
            left = min(left, max(self._limit - spent, 0.0))
        said = f"{done} of {total}, {duration_text(left)} left"
        self._progress.update(self._task, total=total, completed=done, said=said)
        if not self._drawn and now - self._last_line > _QUIET_SECONDS:
            self._last_line = now
            print(f"{self._stage}: {said}", file=sys.stderr, flush=True)


@contextmanager
def bar(what: str, *, total: int) -> Generator[Callable[[int], None]]:
    """A bar of one stage; the function it gives counts what was done since the last call."""
    done = 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        drawn.tell(done, total)

    with Bar() as drawn:
        drawn.enter(what)
        yield advance
