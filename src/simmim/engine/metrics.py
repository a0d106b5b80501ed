"""Numbers of a run: added up on the device, written at every report, the same after a cut as without one."""

import json
import math
import resource
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from simmim.engine.trackers import TrackerName, open_trackers
from simmim.files import room_on_disk, write_text_atomically


class Meter:
    """Means over the steps since the last report. Stays on the device until it is read."""

    def __init__(self, sums: Mapping[str, float] | None = None, steps: int = 0) -> None:
        self._sums: dict[str, Tensor | float] = dict(sums or {})
        self.steps = steps

    def add(self, values: Mapping[str, Tensor], weight: float = 1.0) -> None:
        """Add a share of a step."""
        for name, value in values.items():
            self._sums[name] = self._sums.get(name, 0.0) + value.detach().to(torch.float64) * weight

    def add_step(self, step: "Meter", *, gradient_norm: Tensor) -> None:
        """Add a finished step, and the norm its gradient had."""
        values = {name: torch.as_tensor(value) for name, value in step._sums.items()}
        self.add({**values, "gradient_norm": gradient_norm})
        self.steps += 1

    def is_finite(self) -> bool:
        """Whether every sum is a number; waits for the device."""
        return all(bool(torch.as_tensor(value).isfinite()) for value in self._sums.values())

    def sums(self) -> dict[str, float]:
        """What was added up; waits for the device."""
        return {name: float(value) for name, value in self._sums.items()}

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps, so that a report in the middle of which a run was cut comes out the same."""
        return {"sums": self.sums(), "steps": self.steps}


class MetricsLog:
    """metrics.jsonl of a run, and what tracks it beside."""

    def __init__(self, path: Path, *, after_step: int, trackers: Sequence[TrackerName] = ("tensorboard",)) -> None:
        self._path = path
        self._forget_after(after_step)
        with room_on_disk(path.parent, "the TensorBoard events"):
            self._trackers = open_trackers(trackers, path.parent, after_step=after_step)

    def _forget_after(self, step: int) -> None:
        """Drop the reports behind the step from which the run goes on: they will be written again."""
        if not self._path.exists():
            return
        rows = read_metrics(self._path)
        write_text_atomically(self._path, "".join(json.dumps(row) + "\n" for row in rows if row["step"] <= step))

    def write(self, row: Mapping[str, Any]) -> None:
        """Write a report; a number that is not finite is written as null, for JSON has no word for it."""
        row = {name: _finite(value) for name, value in row.items()}
        with room_on_disk(self._path.parent, self._path.name):
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
            scalars = {name: value for name, value in row.items() if isinstance(value, float)}
            for tracker in self._trackers:
                tracker.add(scalars, step=row["step"])

    def close(self) -> None:
        """Finish what tracks the run."""
        for tracker in self._trackers:
            tracker.close()


def peak_memory(device: torch.device) -> dict[str, float]:
    """The most memory this process has held so far, in GiB: of the machine, and of its GPU where it has one."""
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # KiB, on a Mac bytes
    peaks = {"memory_gib": resident / (2**30 if sys.platform == "darwin" else 2**20)}
    if device.type == "cuda":
        peaks["gpu_memory_gib"] = torch.cuda.max_memory_allocated(device) / 2**30
    return peaks


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The reports of a run; a last line that was cut in the middle is left out."""
    rows: list[dict[str, Any]] = []
    for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
        if line.endswith("\n"):
            rows.append(json.loads(line))
    return rows
