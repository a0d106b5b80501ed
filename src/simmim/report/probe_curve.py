"""The picture of a probe: accuracy over the layers."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from simmim.files import write_atomically

_COLOURS = ("tab:blue", "tab:orange")


class Line(NamedTuple):
    """One pooling: the layers, and the accuracies there in cross-validation and on what was held out."""

    layers: Sequence[int]
    cross_validation: Sequence[float]
    held_out: Sequence[float]


class Panel(NamedTuple):
    """One classifier: a line a pooling, and the place that was chosen."""

    title: str
    lines: Mapping[str, Line]
    chosen: tuple[int, str, float]
    """Layer, pooling and accuracy on what was held out."""


def draw_probe(panels: Sequence[Panel], path: Path, *, title: str) -> None:
    """Accuracy over the layer, a panel a classifier; the chosen place is ringed."""
    with mpl.rc_context({"axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(10, 4.5), layout="constrained")
        for axes, panel in zip(figure.subplots(1, len(panels), sharey=True), panels, strict=True):
            for colour, (pooling, line) in zip(_COLOURS, panel.lines.items(), strict=False):
                axes.plot(line.layers, line.held_out, "o-", color=colour, ms=4, label=f"{pooling}, held out")
                axes.plot(line.layers, line.cross_validation, "--", color=colour, lw=1, label=f"{pooling}, cross-val.")
            layer, pooling, accuracy = panel.chosen
            axes.plot([layer], [accuracy], "o", ms=13, mfc="none", mec="0.2", label=f"chosen: {layer}, {pooling}")
            axes.set_title(panel.title)
            axes.set_xlabel("layer")
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
            axes.grid(axis="y", alpha=0.25)
            axes.legend(frameon=False, fontsize=8)
        figure.axes[0].set_ylabel("accuracy")
        figure.suptitle(title)
        write_atomically(path, lambda part: figure.savefig(part, format="png", dpi=120))
