"""Words on a command line become a task. Verbs, flags and how errors meet a person; nothing else.

Each module holds the verbs of one kind; torch is imported inside a verb.
"""

import os
import select
import shlex
import sys
from collections.abc import Callable
from typing import NoReturn

from simmim.cli import (
    doctor,
    embedding,
    evaluating,
    judging,
    parts,
    passport,
    planning,
    recipes,
    reporting,
    studies,
    training,
)
from simmim.cli.app import app

VERBS = (training, judging, evaluating, embedding, reporting, passport, parts, planning, studies, recipes, doctor)
"""Importing them makes their verbs known."""


_UNREAD = 1  # as rich ends where it prints


def _fail(message: str, *, code: int) -> NoReturn:
    rank = os.environ.get("RANK", "0")
    print(f"simmim: {message}" if rank == "0" else f"simmim [process {rank}]: {message}", file=sys.stderr)
    sys.exit(code)


def _run_and_flush(run: Callable[[], object]) -> None:
    try:
        run()
    except SystemExit:
        sys.stdout.flush()
        raise
    sys.stdout.flush()


def _reader_has_gone() -> bool:
    """Whether nobody reads what is printed any more, as behind `| head`."""
    output = sys.stdout.fileno()
    asked = select.poll()
    asked.register(output, 0)
    gone = any(event & select.POLLERR for _, event in asked.poll(0))
    if gone:
        os.dup2(os.open(os.devnull, os.O_WRONLY), output)  # Python flushes once more at its end
    return gone


def _resume_command() -> str:
    """The command that goes on with what was stopped."""
    words = [word for word in sys.argv[1:] if word != "--resume"]
    world, here = os.environ.get("WORLD_SIZE", "1"), os.environ.get("LOCAL_WORLD_SIZE", "1")
    if world != here:
        return "the same torchrun command, and --resume"
    start = ["simmim"] if world == "1" else ["torchrun", "--nproc-per-node", world, "-m", "simmim"]
    return shlex.join([*start, *words, *([] if words[:1] in (["demo"], ["ablate"]) else ["--resume"])])


def main(run: Callable[[], object] = app) -> None:
    """Run the command line; an error that concerns a person is a sentence, not a traceback."""
    try:
        _run_and_flush(run)
    except BrokenPipeError:
        if not _reader_has_gone():
            raise
        sys.exit(_UNREAD)
    except KeyboardInterrupt:
        _fail("stopped", code=130)
    except ValueError as error:
        if getattr(error, "__notes__", ()):  # another process of the run says it
            sys.exit(2)
        _fail(str(error), code=2)
    except (PermissionError, FileNotFoundError, FileExistsError, IsADirectoryError, NotADirectoryError) as error:
        if error.filename is None:
            raise
        _fail(f"{error.filename2 or error.filename}: {(error.strerror or 'cannot be used').lower()}", code=2)
    except Exception as error:
        from simmim.engine.interruption import Interrupted

        if not isinstance(error, Interrupted):
            raise
        _fail(f"{error}; continue with:\n  {_resume_command()}", code=error.exit_code)
