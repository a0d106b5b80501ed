"""TensorBoard events, written at once.

TensorBoard's own writer hands its records to a thread, which can only print a traceback where the disk is full; here the
error reaches the run, which says it in a sentence. Records and protocol buffers are TensorBoard's.
"""

import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tensorboard.compat.proto import event_pb2, summary_pb2
from tensorboard.summary.writer.record_writer import RecordWriter

_events: Any = event_pb2  # made when they are imported, so a type checker cannot see what is in them
_summaries: Any = summary_pb2


class EventFile:
    """A file of scalars in a folder that TensorBoard reads.

    Args:
        folder: where the file is made; files of earlier starts of the run stay beside it.
        purge_step: from this step on, what earlier files say is void; None for a new run.
    """

    def __init__(self, folder: Path, *, purge_step: int | None = None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        name = f"events.out.tfevents.{time.time_ns()}.{socket.gethostname()}.{os.getpid()}"
        self._file = (folder / name).open("wb", buffering=0)
        self._records = RecordWriter(self._file)
        self._write(_events.Event(wall_time=time.time(), file_version="brain.Event:2"))
        if purge_step is not None:
            start = _events.SessionLog(status=_events.SessionLog.START)
            self._write(_events.Event(wall_time=time.time(), step=purge_step, session_log=start))

    def _write(self, event: Any) -> None:
        self._records.write(event.SerializeToString())

    def add(self, scalars: Mapping[str, float], *, step: int) -> None:
        """Add the numbers of a report.

        Raises:
            OSError: where the file cannot grow.
        """
        values = [_summaries.Summary.Value(tag=name, simple_value=value) for name, value in scalars.items()]
        self._write(_events.Event(wall_time=time.time(), step=step, summary=_summaries.Summary(value=values)))

    def close(self) -> None:
        """Close the file."""
        self._file.close()
