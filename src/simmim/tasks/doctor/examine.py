"""The whole examination: a data set, a recipe, this machine."""

import shlex
import time
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

from simmim.config import to_tree, write_yaml
from simmim.data import Source, Statistics, measure, open_source
from simmim.files import write_text_atomically
from simmim.tasks.catalogue import resolve
from simmim.tasks.doctor.advice import choose_recipe, fit_machine, fit_sizes
from simmim.tasks.doctor.images import problems_of_images
from simmim.tasks.doctor.machine import cores, device_name, free_bytes
from simmim.tasks.doctor.problem import BREAKS, Problem, by_weight
from simmim.tasks.doctor.progress import Stages
from simmim.tasks.doctor.recipe import Fit, examine_recipe
from simmim.tasks.doctor.sample import Sampled, look_at
from simmim.tasks.pretrain import PretrainConfig

_LOOKING_SECONDS, _TRYING_SECONDS = 12.0, 30.0


@dataclass(frozen=True)
class Examination:
    """What the doctor found, and what it advises."""

    data: str
    images: int
    listed: int
    looked_at: int
    seed: int
    formats: dict[str, int]
    depths: dict[str, int]
    channels: dict[str, int]
    sizes: dict[str, tuple[int, int]]
    """Smallest, median and largest height and width."""
    statistics: Statistics | None
    machine: dict[str, Any]
    recipe: str
    why: str
    """Why this recipe, where none was named; empty where one was."""
    fit: Fit
    problems: list[Problem]
    """The heaviest first."""
    advised: PretrainConfig | None
    notes: list[str]
    """What the advised recipe changes, and why."""
    command: str
    seconds: float

    def tree(self) -> dict[str, Any]:
        """As plain data, for JSON."""
        plain = asdict(self)
        plain["problems"] = [problem._asdict() for problem in self.problems]
        plain["fit"]["problems"] = [problem.name for problem in self.fit.problems]
        plain["advised"] = None if self.advised is None else to_tree(self.advised)
        return plain


def examine(
    data: str | Path,
    recipe: str | Path | None = None,
    *,
    write: str | Path | None = None,
    samples: int = 1024,
    seed: int = 0,
    trial: bool = True,
) -> Examination:
    """Say what is in a data set, what will not work, and what to set.

    Args:
        data: a folder of any depth, a list file, or a built-in name.
        recipe: the name of a built-in recipe, or a YAML file; one is chosen if not given.
        write: where a recipe that fits is written, a YAML file.
        samples: images looked at; fewer where that takes more than 12 seconds.
        seed: chooses them.
        trial: whether a step of the recipe is tried here.

    Raises:
        ValueError: where there are no images at all, or the recipe is none for pre-training.
    """
    begin = time.monotonic()
    with Stages() as stages:
        stages.enter("finding the images")
        config = None if recipe is None else cast(PretrainConfig, resolve(recipe, task="pretrain"))
        split = config.data.split if config else None
        source = open_source(data, split=split)
        stages.enter("looking at a sample", seconds=_LOOKING_SECONDS)
        sampled = look_at(source, samples=samples, seed=seed, seconds=_LOOKING_SECONDS, tell=stages.tell)
        name, why = (str(recipe), "") if recipe is not None else choose_recipe(sampled)
        config = _of_these_images(config or cast(PretrainConfig, resolve(name, task="pretrain")), data)
        problems = problems_of_images(source, sampled, data=str(data), split=split)
        stages.enter("measuring mean and std")
        measured, trouble = _measured(source, config, sampled, seed)
        stages.enter("trying a step of the recipe", seconds=_TRYING_SECONDS)
        fit, advised, notes = Fit(), None, list[str]()
        if measured is not None:
            fitted, notes = fit_sizes(config, sampled, measured)
            tried, seconds = (fitted if recipe is None else config), (_TRYING_SECONDS if trial else 0)
            fit = examine_recipe(tried, source, sampled, _of_recipe(tried, measured), seconds=seconds)
            free, trained_on = free_bytes(config.machine.device), max(len(source) - config.data.held_out, 1)
            advised, more = fit_machine(fitted, fit, images=trained_on, free=free)
            notes += more
    _write(advised, write)
    return Examination(
        **_seen(source, sampled),
        data=str(data),
        seed=seed,
        statistics=measured,
        machine=_machine(config),
        recipe=name,
        why=why,
        fit=fit,
        problems=by_weight([*problems, *trouble, *fit.problems]),
        advised=advised,
        notes=notes,
        command=shlex.join(["simmim", "pretrain", str(write or name), "--data", str(data), "--out", "runs/first"]),
        seconds=time.monotonic() - begin,
    )


def _of_these_images(config: PretrainConfig, data: str | Path) -> PretrainConfig:
    return config.model_copy(update={"data": config.data.model_copy(update={"source": str(data)})})


def _write(advised: PretrainConfig | None, write: str | Path | None) -> None:
    if write is not None and advised is not None:
        write_text_atomically(Path(write), write_yaml(advised))


def _machine(config: PretrainConfig) -> dict[str, Any]:
    return {"device": device_name(config.machine.device), "cores": cores(), "free_bytes": free_bytes("auto")}


def _seen(source: Source, sampled: Sampled) -> dict[str, Any]:
    """What was counted of the images."""
    return {
        "images": len(source),
        "listed": source.listed,
        "looked_at": sampled.asked,
        "formats": _counted(look.format for look in sampled.looks),
        "depths": _counted(look.depth for look in sampled.looks),
        "channels": _counted(f"{look.colours}{' + alpha' if look.alpha else ''}" for look in sampled.looks),
        "sizes": _sizes(sampled),
    }


def _measured(
    source: Source, config: PretrainConfig, sampled: Sampled, seed: int
) -> tuple[Statistics | None, list[Problem]]:
    """Mean and std; where the images do not go together, those of the most frequent number of channels."""
    channels = config.data.channel_count
    counts = _counted(str(look.colours) for look in sampled.looks)
    if channels is None and len(counts) > 1 and set(counts) != {"1", "3"}:
        channels = int(next(iter(counts)))
    try:
        return measure(source, channels=channels, samples=256, seed=seed), []
    except ValueError as error:
        try:
            # The recipe's number of channels is not that of the images: say it, and go on with theirs.
            found = measure(source, samples=256, seed=seed)
        except ValueError:
            return None, [
                Problem("nothing readable", BREAKS, str(error), "see the reasons above; copy the files again")
            ]
        said = f"the recipe has {config.data.channels} channels, the images have {found.channels}"
        cure = "set data.channels=null data.mean=null data.std=null to have them measured"
        return found, [Problem("channels of recipe", BREAKS, said, cure)]


def _of_recipe(config: PretrainConfig, measured: Statistics) -> Statistics:
    """What the model is built for: the channels of the recipe where it names them."""
    data = config.data
    if data.mean is None or data.std is None or len(data.mean) == measured.channels:
        return measured
    return Statistics(len(data.mean), data.mean, data.std, 0)


def _counted(words: Any) -> dict[str, int]:
    return dict(Counter[str](words).most_common())


def _sizes(sampled: Sampled) -> dict[str, tuple[int, int]]:
    if not sampled.looks:
        return {}
    by_area = sorted((look.height * look.width, look.height, look.width) for look in sampled.looks)
    chosen = {"smallest": by_area[0], "median": by_area[len(by_area) // 2], "largest": by_area[-1]}
    return {word: (height, width) for word, (_, height, width) in chosen.items()}
