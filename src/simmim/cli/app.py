"""The application, the flags that verbs share, and how what they found is said."""

import json
import os
import shlex
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Parameter

from simmim.version import __version__

if TYPE_CHECKING:
    from simmim.engine.folder import RunFolder

app = App(
    name="simmim",
    version=__version__,
    help="From a pile of unlabelled images to a vision backbone: masked image modeling, from one command.",
)

Data = Annotated[
    str | None, Parameter(help="A folder of any depth, a list file, tar, zip or Parquet files, or digits.")
]
Unlabelled = Annotated[str, Parameter(help="A folder of any depth, a list file, tar, zip or Parquet files, or digits.")]
Labelled = Annotated[
    str, Parameter(help="Labelled images: a sub-folder a class, a list with labels, tar, zip, Parquet, or digits.")
]
Out = Annotated[str, Parameter(help="Folder of the run; it must be new, or be resumed.")]
Seed = Annotated[int | None, Parameter(help="What all randomness is derived from.")]
Resume = Annotated[bool, Parameter(negative="", help="Continue a run that was cut, or begin it.")]
Json = Annotated[bool, Parameter(name="--json", negative="", help="Print one JSON value in place of a table.")]
Layer = Annotated[int | None, Parameter(help="Block whose features are taken, counted from 1.")]
Pooling = Annotated[str | None, Parameter(help="Average of the patches (mean), or class token (cls).")]
Words = Annotated[str, Parameter(help="Settings that differ from the recipe, each path=value.")]


def given(**values: Any) -> Mapping[str, Any]:
    """The settings that flags gave, by path."""
    return {path: value for path, value in values.items() if value is not None}


def print_json(value: object) -> None:
    """Print one JSON value, in the main process."""
    say(json.dumps(value, indent=2))


def say(text: str) -> None:
    """Print a text, in the main process."""
    if os.environ.get("RANK", "0") == "0":
        print(text)


def say_done(folder: "RunFolder", *, next_words: Sequence[str]) -> None:
    """Say where a run lies, what is in it, and what may come next."""
    pictures = sorted(folder.pictures.glob("*.png"))
    weights = sorted(folder.path.glob("*.safetensors"))
    if folder.bad_files.exists():
        count = len(folder.bad_files.read_text(encoding="utf-8", errors="replace").splitlines())
        say(f"{count} files could not be read: {folder.bad_files}")
    lines = [f"{folder} is complete", *(f"  weights  {path}" for path in weights)]
    lines += [f"  picture  {pictures[-1]}"] if pictures else []
    lines += [
        f"  {'next' if not number else '':8} simmim {words.format(run=shlex.quote(str(folder)))}"
        for number, words in enumerate(next_words)
    ]
    say("\n".join(lines))
