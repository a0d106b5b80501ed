"""Curves as SVG that takes its colours from the page around it, so that they follow dark and light."""

import io
import re
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any, NamedTuple
from xml.etree import ElementTree

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from simmim.report.facts import Range

MOST_POINTS = 160
"""Points of a curve that are drawn; more would be lost on a page of this width."""
LINES = 6
"""How many colours there are for lines; --line-1 and so on in the page."""

_SVG = "http://www.w3.org/2000/svg"
_LINK = "{http://www.w3.org/1999/xlink}href"
_COLOURS = {f"#0000a{number}": f"var(--line-{number + 1})" for number in range(LINES)} | {
    "#0000b0": "var(--ink-soft)",
    "#0000b1": "var(--rule)",
    "#0000b2": "var(--good)",
}
_SOFT, _RULE, _GOOD = "#0000b0", "#0000b1", "#0000b2"
_STYLE: Any = {
    "svg.fonttype": "none",
    "font.size": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.edgecolor": _RULE,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.color": _RULE,
    "grid.linewidth": 0.6,
    "xtick.color": _RULE,
    "ytick.color": _RULE,
    "xtick.labelcolor": _SOFT,
    "ytick.labelcolor": _SOFT,
    "ytick.major.size": 0,
    "axes.labelcolor": _SOFT,
    "path.simplify": True,
}


class Curve(NamedTuple):
    """A line of a chart: its name, and its points (x, y)."""

    name: str
    points: Sequence[tuple[float, float]]
    colour: int = 0
    """Which of the page's line colours, from 0."""
    marked: bool = False
    """Whether the points are shown themselves, for a number that is measured now and then."""


class Level(NamedTuple):
    """A horizontal line with a name at its end."""

    name: str
    value: float


def draw_chart(
    curves: Sequence[Curve],
    *,
    name: str,
    levels: Sequence[Level] = (),
    band: Range | None = None,
    width: float = 4.2,
    unit: str = "{:g}",
) -> str:
    """A chart of curves over the steps of a run, as an SVG element.

    Args:
        curves: the lines; points beyond `MOST_POINTS` are averaged.
        name: tells the chart from others on the page.
        levels: horizontal lines to compare with.
        band: a good range, shaded.
        width: in inches; text keeps its size.
        unit: how a value on the axis is written.
    """
    with mpl.rc_context({**_STYLE, "svg.hashsalt": name}):
        figure = Figure(figsize=(width, 2.05 if width < 5 else 2.5), layout="constrained")
        axes = figure.subplots()
        for curve in curves:
            _draw(axes, curve)
        for level in levels:
            axes.axhline(level.value, color=_SOFT, linewidth=0.8, linestyle=(0, (4, 3)))
            place: Any = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points"}
            axes.annotate(
                level.name, (1, level.value), xytext=(3, 0), ha="left", va="center", color=_SOFT, fontsize=7, **place
            )
        if band is not None:
            axes.axhspan(band.low, band.high, color=_GOOD, alpha=0.14, linewidth=0)
        axes.margins(x=0.015)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(5))
        axes.yaxis.set_major_formatter(FuncFormatter(_written(unit)))
        axes.set_xlabel("step", loc="right", labelpad=1)
        drawn = io.StringIO()
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(drawn, format="svg", transparent=True, metadata=nothing)
    return _adopt(drawn.getvalue(), name)


def _written(unit: str) -> Callable[[float, int | None], str]:
    def write(value: float, place: int | None) -> str:
        return unit.format(value)

    return write


def _draw(axes: Axes, curve: Curve) -> None:
    points = thin_out(curve.points)
    marker = "o" if curve.marked or len(points) == 1 else None
    colour = list(_COLOURS)[curve.colour % LINES]
    axes.plot(*zip(*points, strict=True), color=colour, linewidth=1.4, marker=marker, markersize=3)


def thin_out(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """At most `MOST_POINTS` points, each the mean of its neighbours; the last one is kept as it is."""
    if len(points) <= MOST_POINTS:
        return list(points)
    bounds = [number * (len(points) - 1) // (MOST_POINTS - 1) for number in range(MOST_POINTS)]
    parts = (points[begin:end] for begin, end in pairwise(bounds))
    means = [(sum(x for x, _ in part) / len(part), sum(y for _, y in part) / len(part)) for part in parts]
    return [*means, points[-1]]


def _adopt(text: str, name: str) -> str:
    """The drawing as a part of a page: colours by variable, the page's font, no names that another drawing has too."""
    ElementTree.register_namespace("", _SVG)
    ElementTree.register_namespace("xlink", "http://www.w3.org/1999/xlink")
    root = ElementTree.fromstring(text)
    for metadata in root.findall(f"{{{_SVG}}}metadata"):
        root.remove(metadata)
    for element in root.iter():
        _rename(element, name)
        for key, value in element.attrib.items():
            for colour, variable in _COLOURS.items():
                value = value.replace(colour, variable)
            element.set(key, re.sub(r"font: ([\d.]+px)[^;]*", r"font-size: \1", value) if key == "style" else value)
    for key in ("width", "height"):
        root.attrib.pop(key, None)
    return ElementTree.tostring(root, encoding="unicode")


def _rename(element: ElementTree.Element, name: str) -> None:
    if "id" in element.attrib:
        element.set("id", f"{name}-{element.attrib['id']}")
    for key in (_LINK, "clip-path"):
        if key in element.attrib:
            element.set(key, element.attrib[key].replace("#", f"#{name}-"))


def numbered(curves: Sequence[Curve]) -> Iterator[Curve]:
    """The curves in colours of their own, without those that have no points."""
    for number, curve in enumerate(curves):
        if curve.points:
            yield curve._replace(colour=number)
