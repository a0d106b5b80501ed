"""A plan as a picture: memory by kind for every way to train, beside what the card has."""

from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from simmim.files import write_atomically
from simmim.tasks.plan.memory import Memory
from simmim.tasks.plan.search import Option, Plan
from simmim.tasks.plan.words import in_words, time_of

_GIB = 2**30
_COLOURS = ("#4c6a92", "#7f9cc0", "#b9cbe0", "#d8d2b0", "#cfa36b", "#b5533c")
_STYLE: Any = {"svg.fonttype": "none", "svg.hashsalt": "plan", "font.size": 9}
_KINDS = ("png", "svg", "pdf")


def draw_plan(plan: Plan, path: Path) -> None:
    """Draw it.

    Raises:
        ValueError: where the name of the file is not that of a picture.
    """
    kind = path.suffix.lower().lstrip(".")
    if kind not in _KINDS:
        raise ValueError(f"--picture {path}: a picture is a {', '.join(f'.{each}' for each in _KINDS)} file")
    cluster, options = plan.cluster, list(reversed(plan.options))
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(8.5, 1.7 + 0.42 * len(options)), layout="constrained")
        axes = figure.subplots()
        left = [0.0] * len(options)
        for name, colour in zip(Memory._fields, _COLOURS, strict=True):
            widths = [getattr(option.memory, name) / _GIB for option in options]
            axes.barh(range(len(options)), widths, left=left, color=colour, label=name, height=0.7)
            left = [start + width for start, width in zip(left, widths, strict=True)]
        axes.axvline(cluster.gpu.memory_gib, color="black", linewidth=1)
        axes.axvline(cluster.room / _GIB, color="black", linewidth=1, linestyle=(0, (4, 3)))
        axes.set_yticks(range(len(options)), [_label(plan, option) for option in options])
        for place, option in enumerate(options):
            words = time_of(plan, option) if option.fits else "does not fit"
            at: Any = {"xytext": (4, 0), "textcoords": "offset points", "va": "center"}
            axes.annotate(words, (left[place], place), bbox={"facecolor": "white", "linewidth": 0, "pad": 1}, **at)
        axes.set_xlim(0, 1.18 * max(cluster.gpu.memory_gib, *left))
        axes.set_xlabel("GiB a GPU")
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.tick_params(axis="y", length=0)
        figure.suptitle(
            f"{plan.recipe} on {cluster.gpus} x {cluster.gpu.name}: the card's {cluster.gpu.memory_gib:g} GiB (line), of "
            f"which {cluster.room / _GIB:.1f} may be used (dashes)",
            x=0.01,
            ha="left",
            fontsize=9,
        )
        figure.legend(loc="outside lower center", ncols=len(Memory._fields), frameon=False)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, lambda part: figure.savefig(part, format=kind, dpi=150))


def _label(plan: Plan, option: Option) -> str:
    best = plan.cheapest
    return f"{'cheapest: ' if best is not None and option is best else ''}{in_words(option)}"
