"""Ctrl-C and SIGTERM: finish the step, save, say how to go on. And not to outlive the process that started this one."""

import os
import signal
import threading
from types import FrameType, TracebackType

from simmim.parent import has_lost_its_parent

_STDERR = 2
_FIRST_THE_STEP = b"\nThe step at work is finished and saved, then the run stops; Ctrl-C once more ends it at once.\n"


class Interrupted(Exception):  # noqa: N818 - it is no error: the run was asked to stop and did
    """A run that was asked to stop, and saved before it did."""

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + number


class Interruption:
    """Remembers a signal until the loop asks. A second Ctrl-C ends the process at once."""

    def __init__(self) -> None:
        self.number = 0
        self._before: dict[int, signal.Handlers | int | None] = {}
        self._is_one_of_many = "TORCHELASTIC_RUN_ID" in os.environ

    def __enter__(self) -> "Interruption":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._remember)  # pyright: ignore[reportArgumentType]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if error is not None and self._is_one_of_many and self._before:
            signal.signal(
                signal.SIGTERM, signal.SIG_IGN
            )  # torchrun sends it when one fails; the others say why they end

    def _remember(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self.number == signal.SIGINT:
            raise KeyboardInterrupt
        if number == signal.SIGINT and os.environ.get("RANK", "0") == "0":
            os.write(_STDERR, _FIRST_THE_STEP)  # print and logging may be at work in the very moment of a signal
        self.number = number

    def check_parent(self) -> None:
        """End at once where torchrun was killed: an orphan must not go on writing into the folder of its successor."""
        if self._is_one_of_many and has_lost_its_parent():
            os.kill(os.getpid(), signal.SIGKILL)
