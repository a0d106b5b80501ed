"""What a study found: a CSV of every run, a Markdown table beside the paper's numbers, and figures."""

import csv
import io
import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

from simmim.files import write_atomically, write_text_atomically
from simmim.report import Curve, Point, draw_curves
from simmim.tasks.avgdist import good_band
from simmim.tasks.studies.measure import Numbers
from simmim.tasks.studies.study import ACCURACIES, Cell, Measure, Study
from simmim.units import Size

_MARKS = {"official": "", "retold": " °", "recalled": " ?"}
_LEGEND = (
    "The paper's numbers are top-1 accuracies in percent on ImageNet-1K after fine-tuning. No mark: printed in the official "
    "repository or the paper's own text. °: repeated by third parties. ?: recalled, not checked against the paper."
)
_HEADS: dict[Measure, str] = {
    "finetune": "fine-tuned, %",
    "probe": "linear probe, %",
    "knn": "k-NN, %",
    "probe_last": "linear probe of the last layer, %",
    "knn_last": "k-NN of the last layer, %",
    "loss": "loss",
    "avgdist": "AvgDist, px",
    "time": "time",
    "parameters": "parameters, M",
}


class Outcome(NamedTuple):
    """One run of a study, measured or failed."""

    cell: Cell
    seed: int
    folder: Path
    numbers: Numbers
    failed: str | None
    """Why it failed, if it did."""


class Table(NamedTuple):
    """A study's table as words."""

    columns: tuple[str, ...]
    rows: list[tuple[str, ...]]


class _Spread(NamedTuple):
    """A measure of one cell over its seeds."""

    mean: float
    deviation: float
    """Standard deviation of the runs, 0 for one run."""


def write_results(folder: Path, study: Study, outcomes: Sequence[Outcome], *, image_size: Size) -> None:
    """Write results.csv, table.md and the figures of all that is done so far."""
    write_text_atomically(folder / "results.csv", _csv(study, outcomes))
    write_text_atomically(folder / "table.md", _markdown(study, outcomes))
    measure = study.accuracy
    if measure is None:
        return
    if curves := _over_ratio(study, outcomes, measure):
        _draw(folder / "accuracy_by_ratio.png", curves, x="mask ratio", y=_HEADS[measure], title=study.title)
    if curves := _over_distance(study, outcomes, measure):
        _draw(
            folder / "ridge.png",
            curves,
            x="AvgDist, px",
            y=_HEADS[measure],
            title=study.title,
            band=good_band(image_size),
        )


def _draw(
    path: Path, curves: list[Curve], *, x: str, y: str, title: str, band: tuple[float, float] | None = None
) -> None:
    figure = draw_curves(curves, x=x, y=y, title=title, band=band)
    write_atomically(path, lambda part: figure.savefig(part, format="png", dpi=120))


# ------------------------------------------------------------------------------------------------------------- as tables


def table_of(study: Study, outcomes: Sequence[Outcome]) -> Table:
    """A row a cell: mean and standard deviation over the seeds, beside the paper's number."""
    first = _spread(study, outcomes, next(study.cells()), "time")
    seeds = max(sum(outcome.cell == cell for outcome in outcomes) for cell in study.cells())
    columns = ("setting", *(_HEADS[measure] for measure in study.measure), "paper, %")
    rows: list[tuple[str, ...]] = []
    for cell in study.cells():
        mine = [outcome for outcome in outcomes if outcome.cell == cell]
        if not mine:
            continue
        failed = [outcome.failed for outcome in mine if outcome.failed]
        shown = [_shown(measure, _spread(study, outcomes, cell, measure), first, seeds) for measure in study.measure]
        name = cell.name + (f" ({len(failed)} of {len(mine)} failed: {failed[0]})" if failed else "")
        rows.append((name, *shown, "" if cell.paper is None else f"{cell.paper:g}{_MARKS[cell.certainty]}"))
    return Table(columns, rows)


def _spread(study: Study, outcomes: Sequence[Outcome], cell: Cell, measure: Measure) -> _Spread | None:
    values = [getattr(outcome.numbers, measure) for outcome in outcomes if outcome.cell == cell]
    known = [float(value) for value in values if value is not None and math.isfinite(value)]
    return _Spread(statistics.mean(known), statistics.stdev(known) if len(known) > 1 else 0.0) if known else None


def _shown(measure: Measure, found: _Spread | None, first: _Spread | None, seeds: int) -> str:
    if found is None:
        return ""
    if measure in ACCURACIES:
        return f"{found.mean:.1%}".rstrip("%") + (f" ± {100 * found.deviation:.1f}" if seeds > 1 else "")
    if measure == "loss":
        return f"{found.mean:.4f}" + (f" ± {found.deviation:.4f}" if seeds > 1 else "")
    if measure == "parameters":
        return f"{found.mean / 1e6:.2f}"
    if measure == "time":
        return "" if first is None else f"{found.mean / first.mean:.2f}x"
    return f"{found.mean:.2f}"


def _markdown(study: Study, outcomes: Sequence[Outcome]) -> str:
    table = table_of(study, outcomes)
    seeds = len({outcome.seed for outcome in outcomes})
    lines = [f"# {study.title}", ""]
    if study.table:
        lines += [
            f"Mirrors {study.table} of the paper. {seeds} seed{'s' if seeds > 1 else ''}; ± is their deviation.",
            "",
        ]
    lines += [f"- {claim}" for claim in study.claims] + ([""] if study.claims else [])
    lines += [f"| {' | '.join(table.columns)} |", "|---" * len(table.columns) + "|"]
    lines += [f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in table.rows]
    if any(cell.paper is not None for cell in study.cells()):
        lines += ["", _LEGEND]
    if "time" in study.measure:
        lines += ["", "Time is that of the steps of pre-training, the first row's being 1."]
    return "\n".join(lines) + "\n"


def _csv(study: Study, outcomes: Sequence[Outcome]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("row", "varied", "value", "seed", *study.measure, "paper", "certainty", "run", "failed"))
    for outcome in outcomes:
        cell, numbers = outcome.cell, asdict(outcome.numbers)
        measured = [numbers[measure] for measure in study.measure]
        paper = ("", "") if cell.paper is None else (cell.paper, cell.certainty)
        begin = (cell.label, cell.vary or "", "" if cell.value is None else cell.value, outcome.seed)
        writer.writerow((*begin, *measured, *paper, outcome.folder.name, outcome.failed or ""))
    return text.getvalue()


# ------------------------------------------------------------------------------------------------------------ as figures


def _over_ratio(study: Study, outcomes: Sequence[Outcome], measure: Measure) -> list[Curve]:
    """Accuracy over the mask ratio, a line for every row that varies it (the paper's table 1 as a figure)."""
    curves: list[Curve] = []
    for row in study.rows:
        if row.vary != "masking.ratio":
            continue
        found = [
            (float(cell.value), spread)
            for cell in study.cells()
            if cell.label == row.label and (spread := _spread(study, outcomes, cell, measure))
        ]
        if found:
            curves.append(Curve(row.label, [Point(x, 100 * s.mean, 100 * s.deviation) for x, s in found]))
    return curves


def _over_distance(study: Study, outcomes: Sequence[Outcome], measure: Measure) -> list[Curve]:
    """Accuracy over AvgDist (the paper's figure 3b): a ridge, if the paper's statement holds."""
    curves: dict[str, list[Point]] = {}
    for cell in study.cells():
        distance = _spread(study, outcomes, cell, "avgdist")
        found = _spread(study, outcomes, cell, measure)
        if distance and found:
            curves.setdefault(cell.label, []).append(Point(distance.mean, 100 * found.mean, 100 * found.deviation))
    if len({point.x for points in curves.values() for point in points}) < 3:
        return []
    return [Curve(label, sorted(points)) for label, points in curves.items()]
