"""What a study file says."""

from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self, cast

import yaml
from pydantic import Field, model_validator

from simmim.config import RecipeError, Settings, Tree, load, nearest, read_yaml

Measure = Literal["finetune", "probe", "knn", "probe_last", "knn_last", "loss", "avgdist", "time", "parameters"]
Certainty = Literal["official", "retold", "recalled"]

ACCURACIES: tuple[Measure, ...] = ("finetune", "probe", "knn", "probe_last", "knn_last")
"""Measures that say how good an encoder is, from 0 to 1; the first that a study takes is what its figures show."""


class FinetunePlan(Settings, frozen=True):
    """How the encoder of every cell is fine-tuned."""

    recipe: str = "finetune"
    """A recipe of the task finetune."""
    settings: dict[str, Any] = Field(default_factory=dict)
    """What differs from it, by path."""


class Preparation(Settings, frozen=True):
    """Files that targets need, made once from the study's own images; a setting of a cell names them by $word."""

    palette: int | None = Field(default=None, ge=2)
    """Colours of the palette that is fitted as $palette."""
    tokenizer: dict[str, Any] | None = None
    """Settings of the tokenizer that is trained as $tokenizer, by path."""


class StudyRow(Settings, frozen=True):
    """One line of the paper's table: a cell, or a cell for each value of one setting."""

    label: str
    """What the table calls it."""
    settings: dict[str, Any] = Field(default_factory=dict)
    """What differs from the study's recipe, by path; a value may be a block, such as {kind: block}."""
    vary: str | None = None
    """The setting that takes each of the values in `over`."""
    over: tuple[Any, ...] = ()
    """Its values."""
    paper: tuple[float | None, ...] = ()
    """What the paper found, in percent, one for each cell; null where it has none."""
    certainty: tuple[Certainty, ...] | Certainty = "recalled"
    """How sure the paper's numbers are: printed in the official repository, retold by others, or recalled only."""

    @model_validator(mode="after")
    def _as_many_as_cells(self) -> Self:
        if (self.vary is None) != (not self.over):
            raise ValueError("`vary` and `over` go together: the setting, and the values it takes")
        cells = len(self.over) or 1
        for name, found in (("paper", self.paper), ("certainty", self.certainty)):
            if isinstance(found, tuple) and found and len(found) != cells:
                raise ValueError(f"`{name}` has {len(found)} entries for {cells} cells; give one for each, or none")
        return self


class Study(Settings, frozen=True):
    """A table of the paper, or one of your own."""

    title: str
    """What is studied, in a sentence."""
    table: str | None = None
    """The table or figure of the paper that it mirrors."""
    claims: tuple[str, ...] = ()
    """What the paper says about it."""
    recipe: str
    """The recipe of pre-training that all cells share."""
    settings: dict[str, Any] = Field(default_factory=dict)
    """What differs from it in all cells, by path."""
    measure: tuple[Measure, ...] = ("finetune", "loss", "avgdist", "time", "parameters")
    """What is measured of each cell."""
    finetune: FinetunePlan = FinetunePlan()
    """How encoders are fine-tuned, where that is measured."""
    labels: str | None = None
    """Training labels that probes use: "10 per class", "1 %"; all if not given."""
    seeds: int = Field(default=1, ge=1)
    """Runs of each cell: seeds 0, 1, ..."""
    prepare: Preparation = Preparation()
    """Files that targets need."""
    rows: tuple[StudyRow, ...] = Field(min_length=1)
    """The lines of the table."""

    def cells(self) -> Iterator["Cell"]:
        """The cells in the order of the table."""
        for row in self.rows:
            for number, value in enumerate(row.over or (None,)):
                settings = {**row.settings, **({row.vary: value} if row.vary else {})}
                certainty = row.certainty[number] if isinstance(row.certainty, tuple) else row.certainty
                yield Cell(row.label, row.vary, value, settings, row.paper[number] if row.paper else None, certainty)

    @property
    def accuracy(self) -> Measure | None:
        """The measure that says how good a cell is."""
        return next((measure for measure in self.measure if measure in ACCURACIES), None)


class Cell(NamedTuple):
    """One setting of a study."""

    label: str
    vary: str | None
    value: Any
    """What the varied setting is in this cell."""
    settings: dict[str, Any]
    paper: float | None
    """The paper's accuracy in percent."""
    certainty: Certainty

    @property
    def name(self) -> str:
        """Row and value, as the table shows them."""
        return self.label if self.vary is None else f"{self.label}, {self.value}"


class StudySummary(NamedTuple):
    """A study that comes with simmim."""

    name: str
    table: str | None
    cells: int
    seeds: int
    title: str


def _shipped() -> Any:
    return resources.files("simmim.recipes") / "studies"


def study_names() -> list[str]:
    """The studies that come with simmim, sorted."""
    return sorted(item.name.removesuffix(".yaml") for item in _shipped().iterdir() if item.name.endswith(".yaml"))


def list_studies() -> list[StudySummary]:
    """The studies that come with simmim."""
    found = ((name, read_study(name)) for name in study_names())
    return [StudySummary(name, s.table, len(list(s.cells())), s.seeds, s.title) for name, s in found]


def read_study(study: str | Path) -> Study:
    """Read and check a study.

    Args:
        study: the name of one that comes with simmim, or a YAML file. A study may lay its words over those of another
            one, named by `base`.

    Raises:
        RecipeError: where there is none, or it cannot be used; every problem is named.
    """
    tree = _tree(study)
    base = tree.pop("base", None)
    return load(Study, {**_tree(base), **tree} if base else tree, source=f"study {study}")


def _tree(study: str | Path) -> Tree:
    path = Path(study)
    if path.suffix in (".yaml", ".yml") or path.is_file():
        if not path.is_file():
            raise RecipeError(f"there is no study file {str(path)!r}")
        text = path.read_text(encoding="utf-8")
    elif str(study) in study_names():
        text = (_shipped() / f"{study}.yaml").read_text(encoding="utf-8")
    else:
        names = study_names()
        raise RecipeError(
            f"there is no study {str(study)!r}{nearest(str(study), names)}; built in: {', '.join(names)}; or give a "
            ".yaml file"
        )
    try:
        tree = read_yaml(text)
    except yaml.YAMLError as error:
        raise RecipeError(f"study {study} is not YAML: {error}") from error
    if not isinstance(tree, dict):
        raise RecipeError(f"study {study} holds {type(tree).__name__}, not a study")
    return cast(Tree, tree)
