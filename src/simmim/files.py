"""How a file is written: as a whole or not at all, and a full disk is a sentence; and how its content is known again."""

import errno
import hashlib
import os
import shutil
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

_UMASK = os.umask(0)  # it can only be read by setting it
os.umask(_UMASK)
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class DiskFull(ValueError):  # noqa: N818 - it names what happened
    """Something could not be written for want of room; what was saved before is whole."""


@contextmanager
def room_on_disk(folder: Path, what: str) -> Generator[None, None, None]:
    """Turn a full disk into a sentence: what could not be written, how much is free, and that nothing saved is lost.

    Raises:
        DiskFull: in place of the system's own error.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        there = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
        free = shutil.disk_usage(there).free / 2**20
        raise DiskFull(
            f"the disk of {folder} is full ({free:.1f} MiB free): {what} could not be written. What was saved before is "
            "whole; free some space and give the command again (a training run: with --resume)"
        ) from error


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file beside its place and rename it there, so that a cut at any moment leaves the old one or the new one.

    Args:
        path: where the file shall lie.
        write: writes the file at the path it is given.

    Raises:
        DiskFull: where there is no room; what lay there before is untouched.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with room_on_disk(path.parent, path.name):
            path.parent.mkdir(parents=True, exist_ok=True)
            write(part)
            with part.open("rb") as file:
                os.fsync(file.fileno())
            part.chmod(0o666 & ~_UMASK)  # some writers make files for their owner alone
            part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def write_text_atomically(path: Path, text: str) -> None:
    """Write a text file as a whole or not at all."""
    write_atomically(path, lambda part: part.write_text(text, encoding="utf-8", errors="surrogateescape"))


def digest_of(path: Path) -> str:
    """A digest of the content of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
