"""What a person sees while a run goes on: a bar on a terminal, a line now and then elsewhere."""

import logging
import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Any, Self, TypeVar

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

T = TypeVar("T")
_log = logging.getLogger(__name__)
_QUIET_SECONDS = 10
_MEMORY_STEPS = 200


def duration_text(seconds: float) -> str:
    """A time as a person says it: "42 s", "3 min 5 s", "2 h 10 min", "4 d 3 h"."""
    whole = round(seconds)
    for size, name, smaller, small_name in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            return f"{whole // size} {name} {whole % size // smaller} {small_name}"
    return f"{whole} s"


class Clock:
    """How fast a run goes, what part of the time it waits for data, and how long it still takes."""

    def __init__(self) -> None:
        self._marks: deque[float] = deque([time.monotonic()], maxlen=_MEMORY_STEPS + 1)
        self._reported = time.monotonic()
        self._waited = 0.0
        self._images = 0

    def waiting_for(self, items: Iterable[T]) -> Iterator[T]:
        """The items, with the time it takes to get each one counted as waiting."""
        iterator = iter(items)
        while True:
            begin = time.monotonic()
            try:
                item = next(iterator)
            except StopIteration:
                return
            finally:
                self._waited += time.monotonic() - begin
            yield item

    def step_done(self, images: int) -> None:
        """Count a finished step of so many images."""
        self._marks.append(time.monotonic())
        self._images += images

    def remaining_seconds(self, steps: int) -> float:
        """Time for so many steps at the pace of the last two hundred, evaluations and saving included."""
        if len(self._marks) < 2:
            return 0.0
        return (self._marks[-1] - self._marks[0]) / (len(self._marks) - 1) * steps

    def report(self) -> dict[str, float]:
        """Images a second and share of waiting since the last report."""
        now = time.monotonic()
        seconds = max(now - self._reported, 1e-9)
        report = {"images_per_second": self._images / seconds, "data_wait": min(self._waited / seconds, 1.0)}
        self._reported, self._waited, self._images = now, 0.0, 0
        return report


class Drawn:
    """What is on the screen while its context lasts."""

    _progress: Progress

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()


class Watch(Drawn):
    """The bar of a run. On a terminal it is drawn; elsewhere a line is written at reports, at most one in ten seconds."""

    def __init__(self, total_steps: int, *, done: int, shown: bool) -> None:
        self._total = total_steps
        self._shown = shown
        self._last_line = float("-inf")
        console = Console(file=sys.stderr)
        self._drawn = shown and console.is_terminal
        columns = (BarColumn(), TextColumn("{task.completed}/{task.total} steps"), TextColumn("{task.fields[said]}"))
        self._progress = Progress(*columns, console=console, disable=not self._drawn, transient=False)
        self._task = self._progress.add_task("training", total=total_steps, completed=done, said="")

    def step(self, done: int) -> None:
        """Move the bar."""
        self._progress.update(self._task, completed=done)

    def say(self, done: int, row: dict[str, Any], remaining_seconds: float) -> None:
        """Show a report."""
        loss = "no finite loss" if row["loss"] is None else f"loss {row['loss']:.4f}"
        said = (
            f"{loss}, {row['images_per_second']:.0f} images/s, "
            f"{row['data_wait']:.0%} waiting for data, {duration_text(remaining_seconds)} left"
        )
        self._progress.update(self._task, said=said)
        _log.debug("step %d of %d: %s, lr %.3g", done, self._total, said, row["lr"])
        now = time.monotonic()
        if self._shown and not self._drawn and (now - self._last_line > _QUIET_SECONDS or done == self._total):
            self._last_line = now
            print(f"step {done} of {self._total}: {said}", file=sys.stderr, flush=True)
