"""The bar of work that is no training: how much is done, and how long it still takes."""

import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from simmim.engine.progress import duration_text

_QUIET_SECONDS = 10


@contextmanager
def bar(what: str, *, total: int) -> Generator[Callable[[int], None]]:
    """Show work on the way to stderr; the function it gives counts what was done since the last call.

    On a terminal a bar is drawn; elsewhere a line is written, at most one in ten seconds.
    """
    console = Console(file=sys.stderr)
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total}"))
    drawn = Progress(*columns, TimeRemainingColumn(), console=console, disable=not console.is_terminal, transient=True)
    task = drawn.add_task(what, total=total)
    begin = last = time.monotonic()
    done = 0

    def advance(count: int) -> None:
        nonlocal done, last
        done += count
        drawn.advance(task, count)
        now = time.monotonic()
        if not console.is_terminal and now - last > _QUIET_SECONDS:
            last = now
            left = duration_text((now - begin) / max(done, 1) * (total - done))
            print(f"{what}: {done} of {total}, {left} left", file=sys.stderr, flush=True)

    with drawn:
        yield advance
