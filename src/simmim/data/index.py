"""The index of a folder: every image file below it, found in one pass and remembered until the folder changes."""

import logging
import os
import stat
import sys
import time
from collections import Counter
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from simmim.data.decode import SUFFIXES
from simmim.data.files import fault_of
from simmim.data.kept import cache_file, keep, recall

_log = logging.getLogger(__name__)

SETTLED_NS = 2_000_000_000
"""Coarser than the time stamps of any file system in use."""

_STRIDE = 1000  # files between two signs of life


@dataclass
class FolderIndex:
    """What lies below a folder; all paths relative to it, with "/".

    `folders` holds the change time (ns) of every folder visited, `others` counts the suffixes of files that are no
    images.
    """

    files: list[str] = field(default_factory=list[str])
    problems: dict[str, str] = field(default_factory=dict[str, str])
    folders: dict[str, int] = field(default_factory=dict[str, int])
    others: dict[str, int] = field(default_factory=dict[str, int])


def index_folder(root: Path) -> FolderIndex:
    """Find the image files below a folder, sorted by path; hidden files and folders are skipped, links are followed.

    The result is kept in the user's cache folder and used again while no folder below `root` has changed, which sees
    every file that was added, removed or renamed. A file whose content was replaced in place keeps its entry, which is
    right for an index of names; a file found bad is looked at again each time.
    """
    remembered = _remembered(root)
    if remembered is not None:
        return remembered
    started = time.time_ns()
    with signs_of_life(root) as tell:
        index = scan_folder(root, tell=tell)
    # A folder that changed just now may change again within the same time stamp: such an index is not kept.
    if started - max(index.folders.values(), default=started) > SETTLED_NS:
        keep(cache_file(root), vars(index))
    return index


def scan_folder(root: Path, *, tell: Callable[[int], None] = lambda files: None) -> FolderIndex:
    """Read the folder tree; `tell` hears now and then how many files were seen. Each real folder is entered once."""
    index, others = FolderIndex(), Counter[str]()
    entered: set[tuple[int, int]] = set()
    waiting, links = [""], list[str]()
    while waiting or links:
        # Links wait until every folder with an address of its own is read: a loop or a second way in finds it done.
        folder = waiting.pop() if waiting else links.pop(0)
        try:
            state = os.stat(root / folder)
            if (state.st_dev, state.st_ino) in entered:
                _log.debug("%s leads to a folder that is indexed already", root / folder)
                continue
            entered.add((state.st_dev, state.st_ino))
            index.folders[folder] = state.st_mtime_ns
            _read_folder(root, folder, index=index, others=others, waiting=waiting, links=links)
        except OSError as error:
            index.problems[folder] = f"is a folder that cannot be opened: {error.strerror}"
        tell(len(index.files))
        links.sort()
    index.files.sort()
    index.others = dict(others.most_common())
    return index


def _read_folder(
    root: Path, folder: str, *, index: FolderIndex, others: Counter[str], waiting: list[str], links: list[str]
) -> None:
    with os.scandir(root / folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            path = f"{folder}/{entry.name}" if folder else entry.name
            suffix = os.path.splitext(entry.name)[1].lower()
            if entry.is_dir():
                (links if entry.is_symlink() else waiting).append(path)
            elif suffix not in SUFFIXES:
                others[suffix or "no suffix"] += 1
            elif fault := _fault_of_entry(entry):
                index.problems[path] = fault
            else:
                index.files.append(path)


def _fault_of_entry(entry: os.DirEntry[str]) -> str | None:
    try:
        state = entry.stat()
    except OSError:
        return fault_of(entry.path)
    if not stat.S_ISREG(state.st_mode):
        return "is not a file"
    return None if state.st_size else "is empty"


@contextmanager
def signs_of_life(root: Path | str) -> Generator[Callable[[int], None]]:
    """Show how many images were found below a folder, where somebody looks; gives what is told that number."""
    if not sys.stderr.isatty():
        yield lambda files: None
        return
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(f"looking for images in {root}", total=None)
        shown = 0

        def tell(files: int) -> None:
            nonlocal shown
            if files // _STRIDE != shown:
                shown = files // _STRIDE
                progress.update(task, description=f"looking for images in {root}: {files}")

        yield tell


def _remembered(root: Path) -> FolderIndex | None:
    content = recall(cache_file(root))
    try:
        index = None if content is None else FolderIndex(**content)
        return index if index is not None and _is_current(root, index) else None
    except FileNotFoundError:  # a folder has gone
        return None
    except (OSError, TypeError) as error:
        _log.debug("the kept index of %s is of no use: %s", root, error)
        return None


def _is_current(root: Path, index: FolderIndex) -> bool:
    unchanged = all(os.stat(root / folder).st_mtime_ns == changed for folder, changed in index.folders.items())
    return unchanged and all(fault_of(str(root / path)) for path in index.problems)
