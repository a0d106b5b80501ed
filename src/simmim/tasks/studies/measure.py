"""What is measured of a cell: its run is brought to its end, then judged; each number is kept beside the run."""

import hashlib
import json
import shlex
import statistics
import subprocess
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple

from simmim.config import write_yaml
from simmim.engine.metrics import read_metrics
from simmim.files import write_text_atomically
from simmim.tasks.avgdist import average_of
from simmim.tasks.catalogue import resolve
from simmim.tasks.finetune import RESULT_FILE, FinetuneConfig, finetune
from simmim.tasks.pretrain import PretrainConfig, pretrain
from simmim.tasks.studies.study import Study
from simmim.tasks.words import probe
from simmim.weights import ENCODER_FILE

_KEPT = "measured.json"
_PROBED = {"probe", "knn", "probe_last", "knn_last"}


class Bench(NamedTuple):
    """How the cells of a study are measured."""

    study: Study
    data: str
    launch: str | None
    """How a training is started; in this process if not given."""


@dataclass(frozen=True, kw_only=True)
class Numbers:
    """What was measured of one run; None for what the study does not ask for."""

    finetune: float | None = None
    """Accuracy on held-out images, 0 to 1, as the next four."""
    probe: float | None = None
    """Of the chosen layer, as knn; the two after them are of the last layer, for comparison."""
    knn: float | None = None
    probe_last: float | None = None
    knn_last: float | None = None
    loss: float | None = None
    """On the run's fixed images at its end."""
    avgdist: float | None = None
    """Pixels."""
    time: float | None = None
    """Seconds that pre-training spent in its steps."""
    parameters: float | None = None
    """Of encoder and head, while it is pre-trained."""

    def said(self) -> str:
        """The numbers in words."""
        return ", ".join(
            f"{field.name} {getattr(self, field.name):.4g}"
            for field in fields(self)
            if getattr(self, field.name) is not None
        )


def measure_cell(config: PretrainConfig, folder: Path, bench: Bench) -> Numbers:
    """Bring a run to its end and measure it; what was measured before is read."""
    kept = folder / _KEPT
    known: dict[str, Any] = json.loads(kept.read_text(encoding="utf-8")) if kept.exists() else {}
    if not (folder / ENCODER_FILE).exists():
        _train(config, folder, bench)
    for how, names in _wanted(bench, seed=config.seed).items():
        if not names <= known.get(how, {}).keys():  # an older version may have measured less
            known[how] = _MEASURES[how.partition(" ")[0]](config, folder, bench)
            write_text_atomically(kept, json.dumps(known, indent=2) + "\n")
    found = {name: value for how in _wanted(bench, seed=config.seed) for name, value in known[how].items()}
    return Numbers(**{name: value for name, value in found.items() if name in bench.study.measure})


def _wanted(bench: Bench, *, seed: int) -> dict[str, set[str]]:
    """What must be done for the study's measures; what depends on the study's plan carries a digest of it."""
    asked = set[str](bench.study.measure)
    wanted: dict[str, set[str]] = {}
    if "finetune" in asked:
        wanted[f"finetune {_digest(asdict_of(_finetune_config(bench, '', seed)))}"] = {"finetune"}
    if asked & _PROBED:
        wanted[f"probe {_digest(bench.study.labels)}"] = asked & _PROBED
    if asked - _PROBED - {"finetune"}:
        wanted["run"] = asked - _PROBED - {"finetune"}
    return wanted


def asdict_of(config: FinetuneConfig) -> Any:
    """All that decides the result of a fine-tuning, as plain data."""
    return config.model_dump(mode="json", exclude={"machine", "output", "encoder"})


def _digest(value: Any) -> str:
    return hashlib.blake2b(json.dumps(value, sort_keys=True).encode(), digest_size=4).hexdigest()


def _train(config: PretrainConfig, folder: Path, bench: Bench) -> None:
    if bench.launch is None:
        pretrain(config, out=folder, resume=True)
    else:
        _launch(bench.launch, "pretrain", config, folder)


def _launch(launch: str, verb: str, config: PretrainConfig | FinetuneConfig, folder: Path, *words: str) -> None:
    """Train in processes of their own, started as the person says."""
    recipe = folder.with_name(f"{folder.name}.yaml")
    write_text_atomically(recipe, write_yaml(config))
    command = [*shlex.split(launch), "-m", "simmim", verb, *words, str(recipe), "--out", str(folder), "--resume"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = [line for line in done.stderr.splitlines() if line.strip()][-3:]
        raise RuntimeError(f"{shlex.join(command)} ended with {done.returncode}: {' | '.join(last)}")
    recipe.unlink()


def _finetune_config(bench: Bench, encoder: str, seed: int) -> FinetuneConfig:
    plan = bench.study.finetune
    given = {"encoder": encoder, "data.source": bench.data, "seed": seed, "output.progress": False}
    config = resolve(plan.recipe, task="finetune", extra={**plan.settings, **given})
    assert isinstance(config, FinetuneConfig)
    return config


def _by_finetuning(config: PretrainConfig, folder: Path, bench: Bench) -> dict[str, float]:
    plan = _finetune_config(bench, str(folder), config.seed)
    out = folder / f"finetuned_{_digest(asdict_of(plan))}"
    if not (out / RESULT_FILE).exists():
        if bench.launch is None:
            finetune(plan, out=out, resume=True)
        else:
            _launch(bench.launch, "finetune", plan, out, str(folder), "--data", bench.data)
    return {"finetune": json.loads((out / RESULT_FILE).read_text(encoding="utf-8"))["accuracy"]}


def _by_probing(config: PretrainConfig, folder: Path, bench: Bench) -> dict[str, float]:
    found = probe(folder, data=bench.data, labels=bench.study.labels, seed=config.seed)
    return {
        "probe": found.linear_accuracy,
        "knn": found.knn_accuracy,
        "probe_last": found.last_linear_accuracy,
        "knn_last": found.last_knn_accuracy,
    }


def _from_run(config: PretrainConfig, folder: Path, bench: Bench) -> dict[str, float | None]:
    """What the run itself wrote down."""
    rows = read_metrics(folder / "metrics.jsonl")
    derived = json.loads((folder / "derived.json").read_text(encoding="utf-8"))
    speed = statistics.median(row["images_per_second"] for row in rows)
    patch = int(getattr(config.masking, "mask_patch", 0)) or None
    return {
        "loss": next((row["fixed_loss"] for row in reversed(rows) if "fixed_loss" in row), None),
        "avgdist": average_of(config.masking, config.data.image_size, patch) if patch else rows[-1].get("avgdist"),
        "time": derived["total_steps"] * config.batch / speed,
        "parameters": derived["parameters"],
    }


_MEASURES = {"finetune": _by_finetuning, "probe": _by_probing, "run": _from_run}
