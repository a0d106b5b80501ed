"""A recipe for a data set: which one, and what to change in it."""

import math
import statistics as numbers
from collections.abc import Iterator
from typing import Any

import torch

from simmim.config import load, merge, to_tree
from simmim.data import Statistics, splits_of
from simmim.tasks.avgdist import Setting, measure_setting
from simmim.tasks.doctor.images import share_to_allow
from simmim.tasks.doctor.machine import cores
from simmim.tasks.doctor.problem import counted
from simmim.tasks.doctor.recipe import Fit
from simmim.tasks.doctor.sample import Sampled
from simmim.tasks.pretrain import PretrainConfig, build_model
from simmim.units import Size

_SMALL_SIDE = 32
_FEWEST_STEPS = 8  # an epoch
_HOURS = 72
_PATCHES = (4, 8, 16, 32, 64)


def choose_recipe(sampled: Sampled) -> tuple[str, str]:
    """The name of a recipe for images like these on this machine, and why."""
    side = _typical_side(sampled)
    if side < _SMALL_SIDE:
        return "demo", f"the images are small ({side} px), and this one has model patches of 4 px"
    if torch.cuda.is_available():
        return "swin_base_192px_100ep", "there is a GPU, and this is the paper's own setting"
    return "tiny", "there is no GPU here; it shows that all works, and a larger one needs a GPU"


def _typical_side(sampled: Sampled) -> int:
    return int(numbers.median(min(look.height, look.width) for look in sampled.looks)) if sampled.looks else 0


def fit_sizes(
    config: PretrainConfig, sampled: Sampled, measured: Statistics, *, bad: float = 0.0
) -> tuple[PretrainConfig, list[str]]:
    """The recipe with statistics, image size and masks that the data ask for, and what was changed and why.

    `bad` is the share of the files that the run steps over.
    """
    split = {"split": "train"} if config.data.split is None and splits_of(config.data.source or "") else {}
    data: dict[str, Any] = {
        **split,
        "channels": measured.channels,
        "mean": list(measured.mean),
        "std": list(measured.std),
    }
    notes = [f"data: channels={measured.channels}, mean and std measured on {counted(measured.measured_on, 'image')}"]
    if bad > config.data.bad_share:
        data["bad_share"] = share_to_allow(bad)
        notes.append(
            f"data.bad_share={data['bad_share']:g}: {bad:.1%} of the files cannot be used and are stepped over"
        )
    small = min(config.data.image_size)
    if 0 < (side := _typical_side(sampled)) < small:
        wanted: Size = (side, side)
    else:
        wanted = config.data.image_size
    for size, setting in _possible(wanted):
        masking = {} if setting is None else {"mask_patch": f"{setting.mask_patch} px", "ratio": setting.ratio}
        if setting is not None and getattr(config.masking, "kind", "") not in ("random", "block"):
            masking["kind"] = "random"
        changed = {"data": {**data, "image_size": list(size)}, "masking": masking}
        fitted = load(PretrainConfig, merge(to_tree(config), changed, PretrainConfig))
        if not _builds(fitted, measured):
            continue
        if size != config.data.image_size:
            notes.append(f"data.image_size={size[0]} px: half of the images have a shorter side of at most {side} px")
        if setting is not None:
            notes.append(
                f"masking: {setting.mask_patch} px at {setting.ratio:g}, AvgDist {setting.avgdist:.1f} px in the band"
            )
        return fitted, notes
    kept = load(PretrainConfig, merge(to_tree(config), {"data": data}, PretrainConfig))
    return kept, [*notes, "no image size near that of the images fits this encoder; the recipe's own is kept"]


def _possible(wanted: Size) -> Iterator[tuple[Size, Setting | None]]:
    """Sizes from the wanted one downwards in steps of 16 px, and for each the masks in the good band, the best first."""
    sizes = [wanted] if wanted[0] % 16 == 0 or wanted[0] != wanted[1] else []
    sizes += [(side, side) for side in range(wanted[0] // 16 * 16, 0, -16)] + [(side, side) for side in (64, 32)]
    for size in dict.fromkeys(sizes):
        settings = [
            measure_setting(size, mask_patch=patch, ratio=ratio)
            for patch in _PATCHES
            for ratio in (0.6, 0.5, 0.7, 0.4)
            if not (size[0] % patch or size[1] % patch) and ratio * size[0] * size[1] // patch**2 >= 1
            and size[0] * size[1] // patch**2 >= 4
        ]  # fmt: skip
        # The paper's 32 px at 192 px, in proportion, and its ratio of 0.6.
        scale = math.sqrt(size[0] * size[1]) / 6
        inside = [setting for setting in settings if setting.in_band]
        yield from (
            (size, one)
            for one in sorted(inside, key=lambda s: (abs(math.log(s.mask_patch / scale)), abs(s.ratio - 0.6)))
        )
        yield size, None


def _builds(config: PretrainConfig, measured: Statistics) -> bool:
    try:
        with torch.device("meta"):
            model = build_model(config, measured)
    except ValueError:
        return False
    return int(getattr(config.masking, "mask_patch", model.encoder.patch_size)) % model.encoder.patch_size == 0


def fit_machine(config: PretrainConfig, fit: Fit, *, images: int, free: float) -> tuple[PretrainConfig, list[str]]:
    """The recipe with the batch, length and machine settings that data set and machine allow, and why."""
    notes: list[str] = []
    batch = min(config.batch, max(2 ** int(math.log2(max(images / _FEWEST_STEPS, 1))), min(16, images)))
    if batch != config.batch:
        notes.append(f"batch={batch}: an epoch of {counted(images, 'image')} is {counted(images // batch, 'step')}")
    micro = min(config.machine.micro_batch or config.batch, batch)
    trial = fit.trial
    while trial.images_per_second and trial.memory(micro) > 0.8 * free and micro > 1:
        micro //= 2
    while batch % micro:
        micro -= 1
    precision = trial.fastest
    workers = max(0, min(8, cores() - 1)) if images > 64 else 0
    epochs = fit.advised_epochs
    if fit.images_per_second:
        here = int(_HOURS * 3600 * fit.images_per_second / max(images, 1))
        if here < epochs:
            notes.append(
                f"{max(here, 1)} epochs are what this machine does in {_HOURS} hours; the data ask for {epochs}"
            )
            epochs = max(here, 1)
    notes.append(f"schedule.duration={epochs} epochs, a rule of thumb: 128 million images seen, at most 2000 epochs")
    notes.append(f"machine: micro_batch={micro}, precision={precision}, workers={workers}")
    schedule: dict[str, Any] = {"duration": f"{epochs} epochs", "warmup": f"{round(min(10, epochs / 10), 2)} epochs"}
    if config.schedule.decay == "multistep":
        schedule["milestones"] = [f"{max(epochs * 7 // 8, 1)} epochs"]
    changed = {
        "batch": batch,
        "schedule": schedule,
        "output": {name: f"{max(1, epochs // 20)} epochs" for name in ("save_every", "evaluate_every")},
        "machine": {"micro_batch": micro, "precision": precision, "workers": workers},
    }
    return load(PretrainConfig, merge(to_tree(config), changed, PretrainConfig)), notes
