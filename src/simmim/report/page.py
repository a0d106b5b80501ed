"""One HTML file that tells of a run, or of several side by side; nothing in it is asked for from elsewhere."""

import functools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup

from simmim.files import write_text_atomically
from simmim.report.charts import Curve, Level, draw_chart, numbered
from simmim.report.embed import Gallery, pack_pictures
from simmim.report.facts import Range, RunFacts
from simmim.report.verdict import FILLINGS, best_filling, filling_words, judge

_TEMPLATES = Path(__file__).parent / "templates"
_MOST_BAD_FILES, _MOST_WARNINGS = 20, 20
_WIDE = 7.2  # inches of a chart across the page


class Chart(NamedTuple):
    """A drawing with its heading; a wide one has a narrow twin for a phone."""

    title: str
    note: str
    svg: Markup
    narrow: Markup | None = None
    legend: Sequence[tuple[str, int]] = ()
    """Names of the lines and the numbers of their colours."""


class Tile(NamedTuple):
    """A number that is seen first."""

    name: str
    value: str
    note: str = ""


class _Plot(NamedTuple):
    metric: str
    title: str
    note: str
    unit: str = "{:g}"


_PLOTS = (
    _Plot("lr", "Learning rate", "of the last step before each report", "{:.1e}"),
    _Plot("gradient_norm", "Gradient norm", "before clipping, mean since the last report"),
    _Plot("images_per_second", "Speed", "images a second, all processes"),
    _Plot("data_wait", "Waiting for data", "share of the time", "{:.0%}"),
    _Plot("memory_gib", "Memory", "peak of the main process, GiB"),
    _Plot("gpu_memory_gib", "GPU memory", "peak of the main process, GiB"),
    _Plot("avgdist", "AvgDist", "px from a hidden pixel to the nearest visible one; shaded: the good band"),
    _Plot("knn_accuracy", "Nearest neighbours", "accuracy of frozen features on the labelled folder", "{:.0%}"),
    _Plot("accuracy", "Accuracy", "on the images that were held out", "{:.0%}"),
)


def write_page(path: Path, facts: RunFacts) -> None:
    """Write the page of a run, as a whole or not at all."""
    verdict, gallery = judge(facts), pack_pictures(facts.pictures, facts.image_size)
    charts = [chart for plot in _PLOTS if (chart := _small_chart([facts], plot))]
    page = _render(
        "run.html",
        facts=facts,
        verdict=verdict,
        progress=_progress(facts),
        tiles=list(_tiles(facts)),
        loss=_loss_chart(facts),
        charts=charts,
        gallery=gallery,
        samples=_samples(gallery),
        data=list(_data_rows(facts)),
        environment=_environment(facts),
        bad_files=facts.bad_files[:_MOST_BAD_FILES],
        warnings=facts.warnings[-_MOST_WARNINGS:],
    )
    write_text_atomically(path, page)


def write_comparison(path: Path, runs: Sequence[RunFacts]) -> None:
    """Write the page of several runs side by side: what differs, how each ends, curves over each other."""
    names = _names(runs)
    losses = _Plot("loss", "Training loss", "mean since the last report")
    fixed = _Plot("fixed_loss", "Loss on the fixed images", "comparable where images, masks and target are the same")
    held_out = _Plot("held_out_loss", "Loss on held-out images", "")
    charts = [chart for plot in (fixed, losses, held_out, *_PLOTS) if (chart := _small_chart(runs, plot, names))]
    page = _render(
        "compare.html",
        names=names,
        verdicts=[judge(facts) for facts in runs],
        results=_result_table(runs),
        settings=_differing_settings(runs),
        charts=charts,
        runs=runs,
        commands=[_environment(facts).get("command", "") for facts in runs],
    )
    write_text_atomically(path, page)


def _render(template: str, **context: Any) -> str:
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    page = environment.get_template(template).render(**context)
    return page.encode("utf-8", errors="replace").decode("utf-8")  # a file's name may hold what is no character


# ----------------------------------------------------------------------------------------------------------------- charts


def _loss_chart(facts: RunFacts) -> Chart | None:
    curves = list(
        numbered(
            [
                Curve("training", facts.series("loss")),
                Curve("fixed images", facts.series("fixed_loss"), marked=True),
                Curve("held-out images", facts.series("held_out_loss"), marked=True),
            ]
        )
    )
    if not curves:
        return None
    names = sorted({name for row in facts.rows for name in row if name.startswith(FILLINGS)})
    levels = [
        Level(filling_words(name.removeprefix(FILLINGS)), value)
        for name in names
        if (value := facts.newest(name)) is not None
    ]
    draw = functools.partial(draw_chart, curves, levels=_apart(levels))
    note = "dashed: fillings that have learned nothing, on the fixed images" if levels else ""
    legend = [(curve.name, curve.colour) for curve in curves]
    wide, narrow = draw(name="loss", width=_WIDE), draw(name="loss-narrow")
    return Chart("Loss", note, Markup(wide), Markup(narrow), legend)


def _apart(levels: Sequence[Level]) -> list[Level]:
    """The levels, those whose names would lie on each other under one name."""
    joined: list[Level] = []
    for level in sorted(levels, key=lambda one: one.value):
        if joined and level.value - joined[-1].value < 0.04 * max(abs(level.value), 1e-12):
            joined[-1] = Level(f"{level.name},\n{joined[-1].name}", level.value)
        else:
            joined.append(level)
    return joined


def _small_chart(runs: Sequence[RunFacts], plot: _Plot, names: Sequence[str] = ("",)) -> Chart | None:
    """A chart of one number, a line a run; None where no run has it."""
    curves = list(numbered([Curve(name, facts.series(plot.metric)) for name, facts in zip(names, runs, strict=True)]))
    if not curves:
        return None
    band: Range | None = runs[0].good_avgdist if plot.metric == "avgdist" else None
    svg = draw_chart(curves, name=plot.metric.replace("_", "-"), band=band, unit=plot.unit)
    legend = [(curve.name, curve.colour) for curve in curves if curve.name]
    return Chart(plot.title, plot.note, Markup(svg), legend=legend)


# ------------------------------------------------------------------------------------------------------------------- words


def _progress(facts: RunFacts) -> str:
    if facts.complete:
        return f"complete, {facts.total_steps:,} steps"
    return f"step {int(facts.last.get('step', 0)):,} of {facts.total_steps:,}"


def _tiles(facts: RunFacts) -> Iterator[Tile]:
    fixed, best = facts.newest("fixed_loss"), best_filling(facts)
    if fixed is not None:
        yield Tile("loss, fixed images", f"{fixed:.4f}")
        if best is not None and best[1] > 0:  # images of one colour are filled without an error
            yield Tile("against the best filling", f"{(fixed - best[1]) / best[1]:+.0%}", filling_words(best[0]))
    for metric, name, unit in (
        ("accuracy", "accuracy", "{:.1%}"),
        ("knn_accuracy", "nearest neighbours", "{:.1%}"),
        ("loss", "training loss", "{:.4f}"),
        ("avgdist", "AvgDist", "{:.1f} px"),
        ("images_per_second", "images a second", "{:,.0f}"),
        ("data_wait", "waiting for data", "{:.0%}"),
        ("gpu_memory_gib", "GPU memory", "{:.1f} GiB"),
        ("memory_gib", "memory", "{:.1f} GiB"),
    ):
        value = facts.newest(metric)
        if value is not None:
            yield Tile(name, unit.format(value))
    yield Tile("skipped steps", str(int(facts.last.get("skipped_steps") or 0)))
    yield Tile("bad files", str(len(facts.bad_files)))


def _samples(gallery: Gallery) -> list[str]:
    """Images of the data as the model sees them: the originals of the fixed ones."""
    return [sight.fixed[0] for sight in gallery.sights if sight.fixed]


def _data_rows(facts: RunFacts) -> Iterator[tuple[str, str]]:
    derived = facts.derived
    numbers: dict[str, Callable[[Any], str]] = {
        "images": "{:,}".format,
        "held_out_images": "{:,}".format,
        "channels": str,
        "mean": _numbers,
        "std": _numbers,
        "hidden_share": "{:.1%}".format,
        "parameters": "{:,}".format,
        "peak_lr": "{:.3g}".format,
        "steps_per_epoch": "{:,}".format,
    }
    if source := facts.settings.get("data.source"):
        yield "source", source
    if facts.image_size:
        yield "image size", "{}×{} px".format(*facts.image_size)
    for name, show in numbers.items():
        if derived.get(name) is not None:
            yield name.replace("_", " "), show(derived[name])
    if classes := derived.get("classes"):
        yield "classes", f"{len(classes)}: {', '.join(map(str, classes[:20]))}{' …' if len(classes) > 20 else ''}"


def _numbers(values: Any) -> str:
    return ", ".join(f"{value:.3f}" for value in values)


def _environment(facts: RunFacts) -> dict[str, str]:
    found: dict[str, Any] = facts.derived.get("environment", {})
    shown = {name: str(value) for name, value in found.items() if value is not None}
    return shown | ({"command": again} if (again := _command(shown.get("command", ""))) else {})


def _command(command: str) -> str:
    """The command without the place where the program lay."""
    program, _, words = command.partition(" ")
    name = Path(program).name
    return f"{'simmim' if name in ('simmim', '__main__.py') else program} {words}" if command else ""


# -------------------------------------------------------------------------------------------------------------- comparison


def _names(runs: Sequence[RunFacts]) -> list[str]:
    """Short names where they tell the runs apart, else their folders."""
    short = [facts.name for facts in runs]
    return short if len(set(short)) == len(short) else [facts.folder for facts in runs]


def _differing_settings(runs: Sequence[RunFacts]) -> list[tuple[str, list[str]]]:
    paths = dict.fromkeys(path for facts in runs for path in facts.settings)
    table = [(path, [facts.settings.get(path, "–") for facts in runs]) for path in paths]
    return [(path, values) for path, values in table if len(set(values)) > 1]


def _result_table(runs: Sequence[RunFacts]) -> list[tuple[str, list[str]]]:
    tiles = [{tile.name: tile.value for tile in _tiles(facts)} for facts in runs]
    results = [{f"{r.title}: {name}": value for r in facts.results for name, value in r.values} for facts in runs]
    found = [{"progress": _progress(f), **one, **two} for f, one, two in zip(runs, tiles, results, strict=True)]
    names = dict.fromkeys(name for one in found for name in one)
    return [(name, [one.get(name, "–") for one in found]) for name in names]
