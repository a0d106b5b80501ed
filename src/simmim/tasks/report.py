"""The page of a run, made from its folder alone: of a run that goes on, that ended, or that an older version made."""

import json
import logging
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

from pydantic import TypeAdapter

from simmim.config import read_yaml
from simmim.engine.folder import RunFolder
from simmim.engine.metrics import read_metrics
from simmim.report import Range, Result, RunFacts, StepPicture, write_comparison, write_page
from simmim.tasks.avgdist import good_band
from simmim.units import ImageSize, Size

REPORT_FILE, PROBE_FILE, RESULT_FILE = "report.html", "probe.json", "result.json"
_RESULTS = {RESULT_FILE: "Fine-tuning", PROBE_FILE: "Probe of frozen features"}
_SHARES = ("accuracy",)  # what a name ends with that is shown in per cent
_PATIENCE_SECONDS, _SHARE_OF_TIME = 30.0, 0.02
_log = logging.getLogger("simmim")


def report(runs: Sequence[str | Path], *, out: str | Path | None = None) -> Path:
    """Write the page of a run, or of several side by side.

    Args:
        runs: folders of runs.
        out: where the page is written; report.html in the folder of a single run if not given.

    Returns:
        Where the page lies.

    Raises:
        ValueError: where a folder holds no run, or several are given and no place for their page.
    """
    if not runs:
        raise ValueError("no run was named; give the folder of one, or of several to compare")
    if len(runs) > 1 and out is None:
        raise ValueError("a page of several runs lies in none of their folders; say where with --out compare.html")
    found = [read_facts(run) for run in runs]
    path = Path(out) if out is not None else Path(runs[0]) / REPORT_FILE
    if path.is_dir():
        raise ValueError(f"{path} is a folder; --out takes a file, such as {path / 'compare.html'}")
    if len(found) == 1:
        write_page(path, found[0])
    else:
        write_comparison(path, found)
    return path


class Page:
    """report.html of a run while it goes on. Where it cannot be written, the run warns and goes on."""

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder
        self._next = time.monotonic() + _PATIENCE_SECONDS

    def keep(self) -> None:
        """Write the page, unless it is new: it must not take more than a small share of the time."""
        if time.monotonic() > self._next:
            self.write()

    def write(self) -> None:
        """Write the page now."""
        begin = time.monotonic()
        try:
            report([self._folder.path])
        except Exception as error:  # noqa: BLE001 - a page is not worth a run
            _log.warning("%s could not be written: %s", self._folder.path / REPORT_FILE, error)
            _log.debug("the page failed", exc_info=True)
        now = time.monotonic()
        self._next = now + max(_PATIENCE_SECONDS, (now - begin) / _SHARE_OF_TIME)


def renew(run: str | Path) -> None:
    """Write the page of a run again, where what was named is one that has a page: something new is known of it."""
    folder = RunFolder(run)
    if (folder.path / REPORT_FILE).is_file():
        Page(folder).write()


def read_facts(run: str | Path) -> RunFacts:
    """What the folder of a run says of it.

    Raises:
        ValueError: where it holds none.
    """
    folder = RunFolder(run)
    if not folder.recipe.is_file():
        raise ValueError(
            f"there is no run {str(run)!r}"
            if not folder.path.exists()
            else f"{run} holds no run: it has no {folder.recipe.name}"
        )
    text = _read(folder.recipe)
    recipe = read_yaml(text)
    size = _image_size(recipe)
    derived = cast(dict[str, Any], json.loads(_read(folder.derived) or "{}"))
    rows = read_metrics(folder.metrics) if folder.metrics.is_file() else []
    measured = any("avgdist" in row for row in rows)
    return RunFacts(
        name=folder.path.resolve().name,
        folder=str(run),
        task=str(recipe.get("task", "run")),
        recipe=text,
        settings=dict(_flat(recipe)),
        derived=derived,
        rows=rows,
        complete=bool(rows) and rows[-1]["step"] >= derived.get("total_steps", float("inf")),
        pictures=_pictures(folder),
        image_size=size,
        good_avgdist=Range(*good_band(size)) if size and measured else None,
        bad_files=[_bad_file(line) for line in _read(folder.bad_files).splitlines()],
        warnings=[line for line in _read(folder.log).splitlines() if " WARNING " in line or " ERROR " in line],
        results=[*_results(folder.path), *_of_classifiers(folder.path)],
    )


def _read(path: Path) -> str:
    """A text file of the run, empty where it is not there; names in it may be in any encoding."""
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""


def _image_size(recipe: Any) -> Size | None:
    given = recipe.get("data", {}).get("image_size")
    return None if given is None else TypeAdapter[Size](ImageSize).validate_python(given)


def _flat(tree: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """The settings of a recipe by path, values as a person would type them."""
    if isinstance(tree, dict) and tree:
        for name, value in cast(dict[str, Any], tree).items():
            yield from _flat(value, f"{path}.{name}" if path else name)
    else:
        yield path, tree if isinstance(tree, str) else json.dumps(tree)


def _pictures(folder: RunFolder) -> list[StepPicture]:
    found = sorted(folder.pictures.glob("step_*.png"))
    return [StepPicture(int(path.stem.removeprefix("step_")), path) for path in found]


def _bad_file(line: str) -> tuple[str, str]:
    path, _, reason = line.partition("\t")
    return path, reason


def _results(path: Path) -> Iterator[Result]:
    for name, title in _RESULTS.items():
        text = _read(path / name)
        if text:
            found: dict[str, Any] = json.loads(text)
            plain = {key: value for key, value in found.items() if not isinstance(value, list | dict)}
            yield Result(title, [(key.replace("_", " "), _shown(key, value)) for key, value in plain.items()])


def _of_classifiers(path: Path) -> Iterator[Result]:
    """The results of the classifiers that lie beside a pre-training and were made from it."""
    for result in sorted(path.resolve().parent.glob(f"*/{RESULT_FILE}")):
        derived = json.loads(_read(result.with_name(RunFolder(result.parent).derived.name)) or "{}")
        if derived.get("pretrained") == str(path.resolve()):
            for one in _results(result.parent):
                yield Result(f"{one.title} in {result.parent.name}", one.values)


def _shown(name: str, value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.1%}" if name.endswith(_SHARES) else f"{value:.4g}"
    return value if isinstance(value, str) else json.dumps(value)
