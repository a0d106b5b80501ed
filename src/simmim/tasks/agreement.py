"""What all processes of a run must agree about before it begins: versions, the recipe, the data."""

import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, NoReturn, TypeVar, cast

import torch

from simmim.config import Settings, Tree, to_tree
from simmim.data import Source
from simmim.engine.distributed import SAID_BY_MAIN, Processes
from simmim.engine.folder import RunError
from simmim.version import __version__

T = TypeVar("T")
_FEW = 4


def differences(then: Any, now: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """The settings in which two trees differ: path, value of the one, value of the other."""
    if isinstance(then, dict) and isinstance(now, dict):
        then, now = cast(Tree, then), cast(Tree, now)
        for name in (*then, *(name for name in now if name not in then)):
            yield from differences(then.get(name), now.get(name), f"{path}.{name}" if path else name)
    elif then != now:
        yield path, then, now


def check_recipe(config: Settings, processes: Processes) -> None:
    """See that all processes run the same recipe with the same versions.

    Raises:
        RunError: in every process, naming the first that differs and in what; the main process says it.
    """
    mine = {"simmim": __version__, "torch": torch.__version__, "recipe": to_tree(config)}
    every = processes.gather(mine)
    for rank, theirs in enumerate(every):
        found = [
            f"{path.removeprefix('recipe.')}: {here!r} in process 0, {there!r} in process {rank}"
            for path, here, there in differences(every[0], theirs)
        ]
        if found:
            more = f" and {len(found) - _FEW} more" if len(found) > _FEW else ""
            _raise_in_all(
                f"process {rank} was started with another recipe or version than process 0: {'; '.join(found[:_FEW])}{more}; "
                "give all hosts the same command, and the same installation",
                processes,
            )


def open_alike(processes: Processes, open_it: Callable[[], T], sources: Callable[[T], Sequence[Source]]) -> T:
    """Data as the main process opened it, known to all, once the other hosts have been seen to hold the same.

    Args:
        processes: the main one opens the data, and the first one of every other host looks at its own.
        open_it: opens the data.
        sources: the images in what was opened.

    Raises:
        RunError: in every process, where a host holds other images; the main process says it.
        ValueError: where the main process cannot open them.
    """
    opened = processes.from_main(open_it)
    if processes.world == 1:
        return opened
    mine: _Seen | str | None = None
    if os.environ.get("LOCAL_RANK") == "0" and not processes.is_main:
        try:
            mine = _look(sources(open_it()))
        except (ValueError, OSError) as error:
            mine = str(error)
    expected = _look(sources(opened))
    for rank, seen in enumerate(processes.gather(mine)):
        if isinstance(seen, str):
            _raise_in_all(f"process {rank}, on another host, cannot open the data: {seen}", processes)
        elif seen is not None and seen != expected:
            if seen.images != expected.images:
                what = f"process {rank} sees {seen.images} images where process 0 sees {expected.images}"
            else:
                what = f"process {rank} sees other images than process 0, though as many ({seen.images})"
            _raise_in_all(f"{what}; every host needs the same data under the same name", processes)
    return opened


class _Seen(NamedTuple):
    images: int
    fingerprints: tuple[str, ...]


def _look(sources: Sequence[Source]) -> _Seen:
    return _Seen(sum(len(source) for source in sources), tuple(source.fingerprint for source in sources))


def _raise_in_all(message: str, processes: Processes) -> NoReturn:
    """Raise what every process found out, so that one of them says it."""
    error = RunError(message)
    if not processes.is_main:
        error.add_note(SAID_BY_MAIN)
    raise error
