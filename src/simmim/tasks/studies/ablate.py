"""Run a study: cell by cell, seed by seed, each an ordinary run; what is done is not done again."""

import hashlib
import re
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from simmim.config import RecipeError, merge, read_overrides, write_yaml
from simmim.engine.interruption import Interrupted
from simmim.engine.progress import duration_text
from simmim.files import write_text_atomically
from simmim.tasks.catalogue import nested, resolve
from simmim.tasks.pretrain import PretrainConfig
from simmim.tasks.studies.measure import Bench, Numbers, measure_cell
from simmim.tasks.studies.prepare import prepare
from simmim.tasks.studies.study import Cell, Study, read_study
from simmim.tasks.studies.tables import Outcome, write_results

_MOST_OF_A_REASON = 300  # characters of an error that a table shows


class PlannedRun(NamedTuple):
    """One run of a study."""

    cell: Cell
    seed: int
    config: PretrainConfig
    folder: Path


def ablate(
    study: str | Path,
    *,
    data: str | Path,
    out: str | Path,
    overrides: Sequence[str] = (),
    seeds: int | None = None,
    launch: str | None = None,
) -> list[Outcome]:
    """Run what is left of a study and write its table, its CSV and its figures.

    Args:
        study: the name of a study that comes with simmim, or a YAML file.
        data: labelled images; labels are used for judging alone.
        out: folder; the runs lie in `out/runs`, what was found in `out/<name of the study>`. Studies that share a folder
            share the runs they have in common.
        overrides: settings of pre-training for all cells, such as "machine.workers=8".
        seeds: runs of each cell, in place of what the study says.
        launch: how a training is started, such as "torchrun --nproc-per-node 8"; in this process if not given.

    Returns:
        One outcome a cell and seed; one that failed says why, and is tried again by the next call.

    Raises:
        ValueError: where the study itself cannot be used; nothing was started then.
        simmim.Interrupted: where it was asked to stop; the same call goes on.
    """
    plan, out = read_study(study), Path(out)
    if seeds is not None:
        plan = plan.model_copy(update={"seeds": seeds})
    results = out / Path(study).stem
    runs = cells_to_run(plan, data=data, runs=out / "runs", prepared=out / "prepared", overrides=overrides)
    bench = Bench(plan, str(data), launch)
    outcomes: list[Outcome] = []
    with _StudyBar(plan, runs) as bar:
        prepare(plan, data=data, out=out / "prepared")
        for run in runs:
            bar.begin(run)
            outcome = _outcome(run, bench)
            outcomes.append(outcome)
            bar.end(outcome)
            write_results(results, plan, outcomes, image_size=run.config.data.image_size)
    return outcomes


def cells_to_run(
    study: Study,
    *,
    data: str | Path,
    runs: Path = Path("runs"),
    prepared: Path = Path("prepared"),
    overrides: Sequence[str] = (),
) -> list[PlannedRun]:
    """Every run of a study, its recipe resolved; all cells of the first seed come first.

    Raises:
        RecipeError: where a cell's settings are no settings; it names the cell.
    """
    planned: list[PlannedRun] = []
    for seed in range(study.seeds):
        for cell in study.cells():
            config = _config(study, cell, seed=seed, data=data, prepared=prepared, overrides=overrides)
            planned.append(PlannedRun(cell, seed, config, runs / _folder_name(cell, config)))
    return planned


def _config(
    study: Study, cell: Cell, *, seed: int, data: str | Path, prepared: Path, overrides: Sequence[str]
) -> PretrainConfig:
    words = {"$palette": str(prepared / "palette.npy"), "$tokenizer": str(prepared / "tokenizer.safetensors")}
    here = merge(nested(study.settings), nested(cell.settings), PretrainConfig)
    common = merge(here, read_overrides(overrides), PretrainConfig)
    given = {"data": {"source": str(data)}, "seed": seed, "output": {"progress": False}}
    try:
        extra = merge(cast(dict[str, Any], _replaced(common, words)), given, PretrainConfig)
        config = resolve(study.recipe, task="pretrain", extra=extra)
    except RecipeError as error:
        raise RecipeError(f"cell {cell.name!r}: {error}") from None
    assert isinstance(config, PretrainConfig)
    return config


def _replaced(value: Any, words: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        return {name: _replaced(inner, words) for name, inner in cast("dict[str, Any]", value).items()}
    return words.get(value, value) if isinstance(value, str) else value


def _folder_name(cell: Cell, config: PretrainConfig) -> str:
    """A name to read, and a digest of all that decides the result: equal cells of two studies are one run."""
    decisive = config.model_copy(update={"machine": type(config.machine)(), "output": type(config.output)()})
    digest = hashlib.blake2b(write_yaml(decisive).encode(), digest_size=5).hexdigest()
    slug = re.sub(r"[^a-z0-9.]+", "_", cell.name.lower()).strip("_")
    return f"{slug}_seed{config.seed}_{digest}"


def _outcome(run: PlannedRun, bench: Bench) -> Outcome:
    folder = _folder_of(run)
    told = folder.with_name(f"{folder.name}.failed.txt")
    try:
        numbers = measure_cell(run.config, folder, bench)
    except Interrupted:
        raise
    except Exception as error:  # noqa: BLE001 - whatever it failed of, a failed cell is not a failed study
        write_text_atomically(told, traceback.format_exc())
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:_MOST_OF_A_REASON]
        return Outcome(run.cell, run.seed, folder, Numbers(), reason)
    told.unlink(missing_ok=True)
    return Outcome(run.cell, run.seed, folder, numbers, None)


def _folder_of(run: PlannedRun) -> Path:
    """Where the run lies; under the name another study gave it, if that did it first."""
    digest = run.folder.name.rpartition("_")[2]
    return min(run.folder.parent.glob(f"*_{digest}"), default=run.folder)


class _StudyBar:
    """The bar over all runs of a study; elsewhere than on a terminal, a line a run."""

    def __init__(self, study: Study, runs: list[PlannedRun]) -> None:
        console = Console(stderr=True)
        columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"))
        self._drawn = console.is_terminal
        self._progress = Progress(*columns, console=console, disable=not self._drawn)
        self._task = self._progress.add_task(study.title, total=len(runs))
        self._study, self._total, self._done = study, len(runs), 0
        self._seconds: list[float] = []
        self._began = 0.0
        self._known = False

    def __enter__(self) -> "_StudyBar":
        self._progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._progress.stop()

    def begin(self, run: PlannedRun) -> None:
        """Say which run is going on."""
        self._began = time.monotonic()
        self._progress.update(self._task, description=f"{run.cell.name}, seed {run.seed}{self._left()}")

    def end(self, outcome: Outcome) -> None:
        """Say how a run ended; only runs that took time say something about the time that is left."""
        seconds = time.monotonic() - self._began
        self._done += 1
        if seconds > 1:
            self._seconds.append(seconds)
        self._progress.update(self._task, completed=self._done)
        if not self._drawn:
            said = f"failed: {outcome.failed}" if outcome.failed else outcome.numbers.said()
            line = f"{self._done} of {self._total}: {outcome.cell.name}, seed {outcome.seed}: {said}{self._left()}"
            print(line, file=sys.stderr, flush=True)

    def _left(self) -> str:
        if not self._seconds or self._done == self._total:
            return ""
        return f", {duration_text(sum(self._seconds) / len(self._seconds) * (self._total - self._done))} left"
