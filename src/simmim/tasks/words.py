"""The same words in Python as on the command line: `simmim.pretrain("tiny", data="photos", out="runs/tiny")`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from simmim.config import load
from simmim.data import LabelledDataConfig
from simmim.engine.folder import RunFolder
from simmim.tasks import finetune as _finetune
from simmim.tasks import pretrain as _pretrain
from simmim.tasks import probe as _probe
from simmim.tasks.catalogue import resolve
from simmim.tasks.doctor.examine import Examination, examine
from simmim.tasks.finetune import FinetuneConfig
from simmim.tasks.pretrain import PretrainConfig


def pretrain(
    recipe: str | Path,
    *,
    data: str | Path | None = None,
    out: str | Path,
    seed: int | None = None,
    resume: bool = False,
    settings: Mapping[str, Any] | None = None,
) -> RunFolder:
    """Pre-train an encoder without labels.

    Args:
        recipe: the name of a built-in recipe, or a YAML file.
        data: a folder of any depth, a list file, or a built-in name; if the recipe does not name one.
        out: folder of the run; it must be new, unless `resume` is set.
        seed: what all randomness is derived from; that of the recipe if not given.
        resume: continue a run that was cut.
        settings: overrides by path, such as {"masking.ratio": 0.5}.

    Returns:
        The folder of the run; `str()` and `.path` give its place.

    Raises:
        ValueError: where recipe, data or folder do not allow it, in words for a person.
        simmim.Interrupted: where the run was asked to stop; it saved before it did.
    """
    extra = _extra(settings, data=data, seed=seed)
    return _pretrain.pretrain(
        cast(PretrainConfig, resolve(recipe, task="pretrain", extra=extra)), out=out, resume=resume
    )


def finetune(
    run: str | Path,
    *,
    data: str | Path,
    out: str | Path,
    recipe: str | Path = "finetune",
    seed: int | None = None,
    resume: bool = False,
    settings: Mapping[str, Any] | None = None,
) -> RunFolder:
    """Fine-tune a classifier on a pre-trained encoder.

    Args:
        run: folder of a pre-training run, or an `encoder.safetensors`.
        data: labelled images: one sub-folder a class, a list file with labels, or a built-in name.
        out: folder of the new run.
        recipe: the name of a built-in recipe, or a YAML file.
        seed: what all randomness is derived from; that of the recipe if not given.
        resume: continue a run that was cut.
        settings: overrides by path, such as {"layer_decay": 0.8}.

    Returns:
        The folder of the new run, which holds `classifier.safetensors` and `result.json`.
    """
    extra = {**_extra(settings, data=data, seed=seed), "encoder": str(run)}
    return _finetune.finetune(
        cast(FinetuneConfig, resolve(recipe, task="finetune", extra=extra)), out=out, resume=resume
    )


def probe(
    run: str | Path,
    *,
    data: str | Path,
    labels: str | None = None,
    layer: int | None = None,
    pooling: str | None = None,
    seed: int = 0,
    workers: int = 0,
) -> _probe.Probed:
    """Judge an encoder by its frozen features, layer by layer: k nearest neighbours and a linear classifier.

    Args:
        run: folder of a run, or an `encoder.safetensors`.
        data: labelled images, as for `finetune`.
        labels: how many training labels are used, such as "10 per class" or "1 %"; all if not given.
        layer: this layer only, counted from 1; the best in cross-validation if not given.
        pooling: "mean" of the patches, or "cls" token; the better one if not given.
        seed: chooses the labels.
        workers: processes that read images.
    """
    block = load(LabelledDataConfig, {"source": str(data), "labels": labels}, source="probe")
    return _probe.probe(run, data=block, layer=layer, pooling=pooling, seed=seed, workers=workers)


def doctor(
    data: str | Path, recipe: str | Path | None = None, *, write: str | Path | None = None, seed: int = 0
) -> Examination:
    """Say what is in a data set, what will not work, and what to set.

    Args:
        data: a folder of any depth, a list file, or a built-in name.
        recipe: the name of a built-in recipe, or a YAML file; one is chosen if not given.
        write: where a recipe that fits is written, a YAML file.
        seed: chooses the images that are looked at.
    """
    return examine(data, recipe, write=write, seed=seed)


def _extra(settings: Mapping[str, Any] | None, *, data: str | Path | None, seed: int | None) -> dict[str, Any]:
    given = {"data.source": None if data is None else str(data), "seed": seed}
    return {**(settings or {}), **{path: value for path, value in given.items() if value is not None}}
