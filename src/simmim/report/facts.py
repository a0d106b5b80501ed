"""What a page tells of a run, as plain data; whoever knows the run's folder fills it in."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

MetricRow = Mapping[str, Any]
"""A line of metrics.jsonl: numbers by name, None where one was not finite."""


class Range(NamedTuple):
    """A good range of a number."""

    low: float
    high: float


class Result(NamedTuple):
    """What came of judging a run: a title, and names with values as they are shown."""

    title: str
    values: Sequence[tuple[str, str]]


class StepPicture(NamedTuple):
    """A picture of the fixed images behind a step, as `draw_rows` drew it."""

    step: int
    path: Path


@dataclass(frozen=True)
class RunFacts:
    """A run as its folder shows it."""

    name: str
    folder: str
    task: str
    recipe: str
    """The recipe as YAML, complete."""
    settings: Mapping[str, str]
    """The recipe by path, values as they are shown."""
    derived: Mapping[str, Any]
    """What the run wrote of itself when it began: images, total_steps, environment and so on."""
    rows: Sequence[MetricRow]
    complete: bool
    pictures: Sequence[StepPicture] = ()
    image_size: tuple[int, int] | None = None
    """Height and width of a training image."""
    good_avgdist: Range | None = None
    bad_files: Sequence[tuple[str, str]] = ()
    """Path and reason."""
    warnings: Sequence[str] = ()
    """Lines of the run's log that warn."""
    results: Sequence[Result] = ()

    @property
    def last(self) -> MetricRow:
        """The newest report; empty where there is none yet."""
        return self.rows[-1] if self.rows else {}

    @property
    def total_steps(self) -> int:
        """How long the run is meant to be."""
        return int(self.derived.get("total_steps", 0))

    def series(self, name: str) -> list[tuple[float, float]]:
        """Step and value of every report that has the number."""
        return [(float(row["step"]), float(row[name])) for row in self.rows if row.get(name) is not None]

    def newest(self, name: str) -> float | None:
        """The newest value of a number, if any report has it."""
        series = self.series(name)
        return series[-1][1] if series else None
