"""Weights leave for another library; it loads them back and must say the same before the command says done."""

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal, NamedTuple

from simmim.files import write_text_atomically
from simmim.tasks.leaving import Leaving, leaving
from simmim.tasks.onnx import write_onnx
from simmim.tasks.outward import Written, write_huggingface, write_official, write_timm
from simmim.version import __version__
from simmim.weights.card import model_card

Destination = Literal["timm", "hf", "official", "onnx"]
"""Whose library shall load the weights."""

_WRITERS: Mapping[str, Callable[[Leaving, Path], Written]] = {
    "timm": write_timm,
    "hf": write_huggingface,
    "official": write_official,
    "onnx": write_onnx,
}
_CLOSE = 1e-3  # rounding is far below, a wrong weight far above


class Exported(NamedTuple):
    """What was written, and how it was checked."""

    folder: str
    files: tuple[str, ...]
    checked_by: str
    difference: float
    """Largest difference of what the foreign library says from what we say, as a share of the largest number."""
    notes: tuple[str, ...]


def export_weights(run: str | Path, *, to: Destination, out: str | Path) -> Exported:
    """Write a folder that another library loads with its own words, and have it loaded back and compared.

    Args:
        run: a run, an imported folder, an encoder file, or a file of another program.
        to: "timm", "hf" (Hugging Face), "official" (microsoft/SimMIM) or "onnx".
        out: the new folder.

    Raises:
        ValueError: where the layout cannot hold the weights, or the library says something else than we do.
    """
    folder = Path(out)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{out} is not empty; choose another --out")
    one = leaving(run)
    beside = folder.absolute().parent
    beside.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=beside) as unchecked:
        there = Path(unchecked)
        written = _WRITERS[to](one, there)
        if not written.difference < _CLOSE:
            raise ValueError(
                f"{written.checked_by} says something else than simmim: they differ by {written.difference:.2g} of the "
                "largest number. Nothing was written; please report this"
            )
        write_text_atomically(there / "README.md", _card(one, written))
        folder.mkdir(exist_ok=True)
        for path in there.iterdir():
            path.replace(folder / path.name)
    files = tuple(sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()))
    return Exported(str(folder), files, written.checked_by, written.difference, written.notes)


def _card(one: Leaving, written: Written) -> str:
    about = one.about
    height, width = about.image_size
    facts = {
        "architecture": f"{about.architecture} (timm)",
        "image size": f"{height}x{width} px",
        "channels": str(about.channels),
        "mean": ", ".join(f"{value:.4g}" for value in about.mean),
        "std": ", ".join(f"{value:.4g}" for value in about.std),
        **({"classes": f"{len(about.classes)}: {', '.join(about.classes[:20])}"} if about.classes else {}),
        "written by": f"simmim {__version__}",
        "checked by": f"{written.checked_by}: largest relative difference {written.difference:.1e}",
    }
    notes = (
        "Mean and std are of 8-bit values divided by 255.",
        "Licence: that of the images and of whoever trained it.",
    )
    title = f"{about.architecture} at {height}x{width} px"
    return model_card(title=title, facts=facts, code=written.code, notes=(*written.notes, *notes), recipe=about.recipe)
