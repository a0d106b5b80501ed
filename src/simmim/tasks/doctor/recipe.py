"""A recipe against a data set and this machine."""

import time
from dataclasses import dataclass, field

import torch

from simmim.data import Source, Statistics
from simmim.masking import average_distance
from simmim.tasks.avgdist import good_band
from simmim.tasks.doctor.machine import free_bytes
from simmim.tasks.doctor.problem import BREAKS, COSTS, SPOILS, Problem
from simmim.tasks.doctor.sample import Sampled
from simmim.tasks.doctor.trial import Trial, run_trial
from simmim.tasks.pretrain import PretrainConfig, build_model, draw_masks

_BYTES_A_WEIGHT = 16  # float32: weight, gradient, two memories of Adam
_ASIDE = 0.3  # how far a mean may lie from the measured one, by the spread
_LONGEST_DAYS = 14
_MUCH_SLOWER = 1.5
_GIB = 1024**3

_SEEN = 128_000_000
"""Images a pre-training should see: 100 epochs of ImageNet-1K, the paper's short run (section 4.1)."""
_MOST_EPOCHS = 2000


@dataclass(frozen=True)
class Fit:
    """How a recipe fits."""

    problems: list[Problem] = field(default_factory=list[Problem])
    parameters: int = 0
    avgdist: float = 0.0
    trial: Trial = field(default_factory=Trial)
    decoded_per_second: float = 0.0
    """Images a second that one core reads and crops as the recipe says."""
    images_per_second: float = 0.0
    """What the slower of network and readers allows."""
    bound_by: str = ""
    hours: float = 0.0
    epochs: float = 0.0
    advised_epochs: int = 0


def advised_epochs(images: int) -> int:
    """A rule of thumb: 128 million images seen, and never more than 2000 epochs.

    100 epochs of ImageNet-1K are 128 million images. With a tenth of ImageNet-1K the loss on fixed images of SwinV2-S
    and -B is lowest after 125 000 steps of 2048 images, with a fifth after 125 000 to 250 000: about 2000 epochs, behind
    which it rises (official file MODELHUB.md of Swin-Transformer, the data-scaling rows).
    """
    return max(1, min(_MOST_EPOCHS, round(_SEEN / max(images, 1))))


def examine_recipe(
    config: PretrainConfig, source: Source, sampled: Sampled, statistics: Statistics, *, seconds: float
) -> Fit:
    """Everything that is asked of a recipe before it runs; a step of it is tried for at most so many seconds, or not."""
    try:
        with torch.device("meta"):
            model = build_model(config, statistics)
        masks = draw_masks(config, model, batch=min(config.batch, 64), step=0)
    except ValueError as error:
        cure = "set data.image_size and masking.mask_patch as the sentence says"
        return Fit([Problem("grid", BREAKS, str(error), cure)], advised_epochs=advised_epochs(len(source)))
    parameters = sum(parameter.numel() for parameter in model.parameters())
    shares = masks.flatten(1).float().mean(dim=1)
    defined = masks[(shares > 0) & (shares < 1)]
    distance = average_distance(defined, patch_size=model.encoder.patch_size) if len(defined) else 0.0
    problems = [*_distance(config, distance), *_of_data(config, source, sampled, statistics)]
    needed, free = parameters * _BYTES_A_WEIGHT, free_bytes(config.machine.device)
    if needed > free:
        trial = Trial(ended="weights, gradients and Adam alone do not fit, so no step was tried", memory_fixed=needed)
    else:
        trial = run_trial(config, statistics, seconds=seconds) if seconds else Trial()
    read = _reading_speed(config, source, statistics)
    return _timed(config, source, Fit(problems, parameters, distance, trial, read), free=free)


def _distance(config: PretrainConfig, distance: float) -> list[Problem]:
    band = good_band(config.data.image_size)
    if band.low <= distance <= band.high:
        return []
    side = "near" if distance < band.low else "far"
    said = f"AvgDist is {distance:.1f} px, too {side}: the good band is {band.low:.0f} to {band.high:.0f} px"
    size = "x".join(map(str, config.data.image_size))
    cure = f"take masking.mask_patch and masking.ratio from: simmim avgdist --image-size {size}"
    return [Problem("avgdist", SPOILS, said, cure)]


def _of_data(config: PretrainConfig, source: Source, sampled: Sampled, measured: Statistics) -> list[Problem]:
    data, found = config.data, list[Problem]()
    small = [look.name for look in sampled.looks if look.height < data.image_size[0] or look.width < data.image_size[1]]
    if small:
        said = f"{len(small)} of {sampled.asked} images looked at are smaller than the recipe's image, and blown up"
        weight = SPOILS if len(small) > sampled.asked / 10 else COSTS
        found.append(
            Problem("small", weight, said, "set a smaller data.image_size, or leave them out", tuple(small[:3]))
        )
    if config.batch > len(source) - data.held_out:
        said = f"a batch of {config.batch} images from {len(source) - data.held_out}"
        cure = "an image comes more than once a step: lower batch, and optimizer.lr follows by itself"
        found.append(Problem("batch", BREAKS, said, cure))
    if data.mean is not None and data.std is not None:
        if len(data.mean) != measured.channels:
            said = f"the recipe's mean has {len(data.mean)} numbers, the images have {measured.channels} channels"
            found.append(
                Problem("channels of recipe", BREAKS, said, "set data.mean=null data.std=null data.channels=null")
            )
        elif max(_far(data.mean, data.std, measured)) > _ASIDE:
            given, seen = ([round(number, 3) for number in numbers] for numbers in (data.mean, measured.mean))
            said = f"the recipe's mean is {given}, that of the images {seen}; or their spreads differ as much"
            found.append(Problem("statistics", SPOILS, said, "set data.mean=null data.std=null to have them measured"))
    return found


def _far(mean: tuple[float, ...], std: tuple[float, ...], measured: Statistics) -> list[float]:
    means = [abs(one - other) / spread for one, other, spread in zip(measured.mean, mean, std, strict=True)]
    return means + [abs(one / other - 1) for one, other in zip(measured.std, std, strict=True)]


def _reading_speed(config: PretrainConfig, source: Source, statistics: Statistics, *, seconds: float = 2.0) -> float:
    """Images a second of one core; what cannot be read counts with the time it took."""
    samples = config.data.view_samples(source, statistics.channels, seed=config.seed)
    threads, done, begin = torch.get_num_threads(), 0, time.monotonic()
    torch.set_num_threads(1)
    try:
        for index in range(0, len(source), max(1, len(source) // 256)):
            samples[0, index]
            done += 1
            if time.monotonic() - begin > seconds:
                break
    except ValueError:  # too many bad files in a row; said among the problems
        done = max(done, 1)
    finally:
        torch.set_num_threads(threads)
    return done / max(time.monotonic() - begin, 1e-9)


def _timed(config: PretrainConfig, source: Source, fit: Fit, *, free: float) -> Fit:
    trial, precision, problems = fit.trial, config.machine.precision, list(fit.problems)
    network, reading = trial.speed_in(precision), fit.decoded_per_second * max(config.machine.workers, 1)
    speed, bound = min(network, reading), "the network" if network <= reading else "reading"
    images = max(len(source) - config.data.held_out, 1)
    steps = config.schedule.duration.steps(max(images // config.batch, 1))
    hours = steps * config.batch / speed / 3600 if speed else 0.0
    if trial.memory_bytes > free or "memory" in trial.ended or "do not fit" in trial.ended:
        said = f"a step needs {trial.memory_bytes / _GIB:.1f} GiB, and {free / _GIB:.1f} GiB are free"
        cure = "set a smaller machine.micro_batch; if weights alone are too much, a smaller encoder.name"
        problems.append(Problem("memory", BREAKS, said, cure))
    elif trial.ended and not trial.images_tried:
        problems.append(Problem("trial", COSTS, f"a step was not tried to its end: {trial.ended}", "see what it says"))
    problems += _of_format(precision, trial)
    if bound == "reading" and hours > 1:
        said = f"reading gives {reading:.0f} images/s, the network could take {network:.0f}"
        cure = f"set machine.workers={config.machine.workers + 2} or more if there are cores, or store smaller images"
        problems.append(Problem("reading", COSTS, said, cure))
    if hours > 24 * _LONGEST_DAYS:
        said = f"the run would take {hours / 24:.0f} days on this machine"
        problems.append(Problem("time", COSTS, said, "use a GPU, a smaller encoder, or a shorter schedule.duration"))
    return Fit(
        problems, fit.parameters, fit.avgdist, trial, fit.decoded_per_second, speed, bound, hours,
        steps * config.batch / images, advised_epochs(len(source)),
    )  # fmt: skip


def _of_format(precision: str, trial: Trial) -> list[Problem]:
    """What speaks against the recipe's number format here."""
    cure = f"set machine.precision={trial.fastest}"
    if precision in trial.refused:
        return [Problem("precision", BREAKS, f"{precision} does not work here: {trial.refused[precision]}", cure)]
    times = trial.precisions
    if precision in times and times[precision] > _MUCH_SLOWER * times[trial.fastest]:
        slower = times[precision] / times[trial.fastest]
        return [
            Problem("precision", COSTS, f"{precision} takes {slower:.1f} times as long as {trial.fastest} here", cure)
        ]
    return []
