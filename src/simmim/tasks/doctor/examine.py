"""The whole examination: a data set, a recipe, this machine."""

import functools
import shlex
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

from simmim.config import to_tree, write_yaml
from simmim.data import Source, Statistics, measure
from simmim.engine.bar import Bar
from simmim.files import write_text_atomically
from simmim.tasks.catalogue import resolve
from simmim.tasks.doctor.advice import choose_recipe, fit_machine, fit_sizes
from simmim.tasks.doctor.images import problems_of_images, share_stepped_over
from simmim.tasks.doctor.machine import cores, device_name, free_bytes
from simmim.tasks.doctor.problem import BREAKS, Problem, by_weight
from simmim.tasks.doctor.recipe import Fit, examine_recipe
from simmim.tasks.doctor.sample import Sampled, look_at
from simmim.tasks.images import open_images
from simmim.tasks.pretrain import PretrainConfig

_ANY_RECIPE = "tiny"  # how it reads files is how all do, unless settings say otherwise
_WHOLE_SECONDS = 50.0  # what is left of a minute when the program has started
_LOOKING_SECONDS, _MEASURING_SECONDS, _READING_SECONDS = 10.0, 5.0, 2.0
_SHORTEST_TRIAL, _LONGEST_TRIAL = 10.0, 30.0


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
        plain["fit"]["trial"] |= {"memory_bytes": self.fit.trial.memory_bytes, "precisions": self.fit.trial.precisions}
        plain["fit"]["problems"] = [problem.name for problem in self.fit.problems]
        plain["advised"] = None if self.advised is None else to_tree(self.advised)
        return plain


def examine(
    data: str | Path,
    recipe: str | Path | None = None,
    settings: Sequence[str] = (),
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
        settings: what differs from the recipe, words such as "data.invalid=black".
        write: where a recipe that fits is written, a YAML file.
        samples: images looked at, chosen by `seed`; fewer where that takes more than 10 seconds.
        trial: whether a step of the recipe is tried here.

    Raises `ValueError` where there are no images at all, or the recipe is none for pre-training.
    """
    _check(samples, write)
    begin = time.monotonic()
    with Bar() as stages:
        stages.enter("finding the images")
        config = _resolved(recipe or _ANY_RECIPE, settings, data)
        source = open_images(config.data)
        stages.enter("looking at a sample", seconds=_LOOKING_SECONDS)
        sampled = look_at(source, config.data, samples=samples, seed=seed, seconds=_LOOKING_SECONDS, tell=stages.tell)
        name, why = choose_recipe(sampled) if recipe is None else (str(recipe), "")
        config = _resolved(name, settings, data)
        problems = problems_of_images(source, sampled, data=config.data)
        stages.enter("measuring mean and std", seconds=_MEASURING_SECONDS)
        measured, trouble = _measured(source, config, sampled, seed)
        trying = _time_to_try(time.monotonic() - begin) if trial else 0.0
        stages.enter("trying a step of the recipe", seconds=trying)
        fit, advised, notes = Fit(), None, list[str]()
        if measured is not None:
            fitted, notes = _fit_sizes(config, source, sampled, measured)
            config = fitted if recipe is None else config
            fit = examine_recipe(config, source, sampled, _of_recipe(config, measured), seconds=trying)
            advised, notes[len(notes) :] = _fit_machine(fitted, fit, source)
    _write(advised, write)
    problems += [*trouble, *fit.problems]
    return Examination(
        **_seen(source, sampled),
        data=str(data),
        seed=seed,
        statistics=measured,
        machine=_machine(config),
        recipe=name,
        why=why,
        fit=fit,
        problems=by_weight(problems),
        advised=advised,
        notes=notes,
        command=_command(data, name, settings, write, problems),
        seconds=time.monotonic() - begin,
    )


def _check(samples: int, write: str | Path | None) -> None:
    if samples < 1:
        raise ValueError(f"samples is {samples}; at least 1 image has to be looked at, and 1024 are a good number")
    if write is not None and Path(write).is_dir():
        raise ValueError(f"{write} is a folder; --write takes a file, such as {Path(write) / 'my.yaml'}")


def _fit_sizes(
    config: PretrainConfig, source: Source, sampled: Sampled, measured: Statistics
) -> tuple[PretrainConfig, list[str]]:
    bad = share_stepped_over(source, sampled, channels=measured.channels)
    return fit_sizes(config, sampled, measured, bad=bad)


def _fit_machine(config: PretrainConfig, fit: Fit, source: Source) -> tuple[PretrainConfig, list[str]]:
    trained_on = max(len(source) - config.data.held_out, 1)
    return fit_machine(config, fit, images=trained_on, free=free_bytes(config.machine.device))


def _time_to_try(spent: float) -> float:
    """Seconds for trying a step, so that the whole stays below a minute."""
    return min(max(_WHOLE_SECONDS - _READING_SECONDS - spent, _SHORTEST_TRIAL), _LONGEST_TRIAL)


def _command(
    data: str | Path, recipe: str, settings: Sequence[str], write: str | Path | None, problems: Sequence[Problem]
) -> str:
    """What to type next; where the recipe as it stands would break, its fitting form is written first."""
    words, first = [recipe, *settings] if write is None else [str(write)], ""
    if write is None and any(problem.weight == BREAKS for problem in problems):
        first = shlex.join(["simmim", "doctor", str(data), *words, "--write", "my.yaml"]) + " && "
        words = ["my.yaml"]
    return first + shlex.join(["simmim", "pretrain", *words, "--data", str(data), "--out", "runs/first"])


def _resolved(recipe: str | Path, settings: Sequence[str], data: str | Path) -> PretrainConfig:
    return cast(PretrainConfig, resolve(recipe, settings, task="pretrain", extra={"data.source": str(data)}))


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
    """Mean and std; where the images do not go together, those of the most frequent number of channels.

    Of fewer images where looking at one took long: its statistics take as long again.
    """
    affordable = int(_MEASURING_SECONDS / max(sampled.seconds / max(sampled.asked, 1), 1e-9))
    samples = min(256, max(affordable, 8))
    channels = config.data.channel_count
    counts = _counted(str(look.colours) for look in sampled.looks)
    if channels is None and len(counts) > 1 and set(counts) != {"1", "3"}:
        channels = int(next(iter(counts)))
    measured = functools.partial(
        measure, source, samples=samples, seed=seed, max_pixels=config.data.max_pixels, invalid=config.data.invalid
    )
    try:
        return measured(channels=channels), []
    except ValueError as error:
        try:
            # The recipe's number of channels is not that of the images: say it, and go on with theirs.
            found = measured()
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
