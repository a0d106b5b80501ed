"""Lines with error bars."""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import matplotlib as mpl
from matplotlib.figure import Figure

_MARKERS = "os^Dv<>Pp*X"


class Point(NamedTuple):
    """One measured place."""

    x: float
    y: float
    deviation: float
    """Standard deviation, drawn as a bar; 0 for none."""


class Curve(NamedTuple):
    """A named line."""

    label: str
    points: Sequence[Point]


def draw_curves(
    curves: Sequence[Curve], *, x: str, y: str, title: str, band: tuple[float, float] | None = None
) -> Figure:
    """A figure of lines with error bars, a legend beside them.

    Args:
        curves: the lines; one point alone is a marker.
        x: what is on the horizontal axis, with its unit.
        y: the same for the vertical one.
        title: what the figure says.
        band: a range of x that is shaded; the axis is logarithmic then.
    """
    with mpl.rc_context({"axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(8, 5), layout="constrained")
        axes = figure.subplots()
        if band is not None:
            axes.axvspan(*band, color="tab:green", alpha=0.15, label="good band")
            axes.set_xscale("log")
            axes.xaxis.set_major_formatter("{x:g}")
            axes.xaxis.set_minor_formatter("{x:g}")
            axes.tick_params(axis="x", which="minor", labelsize=8)
        for curve, marker in zip(curves, itertools.cycle(_MARKERS), strict=False):
            xs, ys = [point.x for point in curve.points], [point.y for point in curve.points]
            bars = [point.deviation for point in curve.points]
            axes.errorbar(xs, ys, yerr=bars, marker=marker, capsize=3, linewidth=1.2, label=curve.label)
        axes.set(xlabel=x, ylabel=y, title=title)
        axes.grid(axis="y", alpha=0.3)
        axes.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
    return figure
