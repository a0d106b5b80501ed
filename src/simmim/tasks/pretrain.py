"""Pre-training: hide part of every image, predict it, keep the encoder."""

import functools
import json
import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

import torch
from pydantic import Field
from torch import Tensor

from simmim.config import Settings, to_tree, write_yaml
from simmim.data import Batch, DataConfig, Source, Statistics, hold_out
from simmim.encoders import AnyEncoder, ViTConfig
from simmim.engine.distributed import MachineConfig, Processes
from simmim.engine.folder import OutputConfig, RunFolder
from simmim.engine.optimizer import Group, OptimizerConfig, group_parameters
from simmim.engine.precision import Precision
from simmim.engine.run import Run
from simmim.engine.schedule import ScheduleConfig
from simmim.heads import AnyHead, LinearHeadConfig
from simmim.masking import AnyMasking, RandomMasking, average_distance
from simmim.model import Scored, SimMIM
from simmim.seeds import seed_of
from simmim.shapes import Mask, PixelMask
from simmim.targets import AnyTarget, PixelTarget
from simmim.tasks.agreement import open_alike
from simmim.tasks.feed import Accompany, Feed
from simmim.tasks.images import feed_images, open_images, statistics_of
from simmim.tasks.monitor import Monitor, MonitorConfig
from simmim.tasks.pictures import Drawing, Gallery, hide_valid, holes_of
from simmim.tasks.training import (
    BuiltRun,
    Session,
    assemble,
    build_schedule,
    describe,
    open_quarantine,
    train_in_folder,
)
from simmim.units import ImageCount, SizeMisfit, check_multiple
from simmim.version import __version__
from simmim.weights import ENCODER_FILE, EncoderFile, save_encoder

_log = logging.getLogger("simmim")
_Shown: TypeAlias = tuple[Mask, PixelMask]
_MASKS_MEASURED = 8  # at every report; exact distances take a millisecond each


class PretrainConfig(Settings, frozen=True):
    """A pre-training run. Everything above `machine` decides the result."""

    task: Literal["pretrain"] = "pretrain"
    """What the run does."""
    masking: AnyMasking = RandomMasking()
    """What is hidden."""
    encoder: AnyEncoder = ViTConfig()
    """Who looks."""
    head: AnyHead = LinearHeadConfig()
    """Who answers."""
    target: AnyTarget = PixelTarget()
    """What is asked."""
    scored: Scored = "hidden"
    """Where prediction and target are compared: on the hidden part, or everywhere."""
    data: DataConfig
    """Where the images come from and how they are shown."""
    optimizer: OptimizerConfig = OptimizerConfig()
    """How the weights move."""
    decay_as_run: bool = False
    """Decay also what official pre-training decayed by an accident of names: Swin's position bias tables, SwinV2's
    position networks and logit scales."""
    schedule: ScheduleConfig = ScheduleConfig()
    """How long it takes, and how the learning rate moves."""
    batch: ImageCount = Field(default=2048, gt=0)
    """Images a step, over all processes."""
    seed: int = Field(default=0, ge=0)
    """What all randomness is derived from."""
    machine: MachineConfig = MachineConfig()
    """Speed and memory; changes the result by no more than rounding and the order of drop path's noise."""
    monitor: MonitorConfig = MonitorConfig()
    """What frozen features are judged on while the run goes on; changes no result."""
    output: OutputConfig = OutputConfig()
    """What is written, and how often; changes no result."""


def pretrain(config: PretrainConfig, *, out: str | Path, resume: bool = False) -> RunFolder:
    """Run a pre-training to its end.

    Args:
        config: the recipe, with `data.source` in it.
        out: folder of the run; it must be new, unless `resume` is set.
        resume: continue a run that was cut, or begin it where there is nothing yet.

    Returns:
        The folder, which holds `encoder.safetensors` when the run is complete.
    """
    return train_in_folder(config, build, out=out, resume=resume, machine=config.machine)


def build_model(config: PretrainConfig, statistics: Statistics) -> SimMIM:
    """The model of a recipe, for images of these statistics, with random weights.

    Raises:
        ValueError: where its sizes do not fit; a size that is suggested fits encoder, target and masks together.
    """
    target = config.target.build(mean=statistics.mean, std=statistics.std)
    image_size = config.data.image_size
    mask_patch = int(getattr(config.masking, "mask_patch", 1))
    try:
        encoder = config.encoder.build(image_size=image_size, in_channels=statistics.channels)
    except SizeMisfit as misfit:
        check_multiple(image_size, misfit.of, "the encoder's patch or stride", also=math.lcm(mask_patch, target.stride))
        raise
    for length, what in ((mask_patch, "mask patch"), (target.stride, "the target's stride")):
        check_multiple(image_size, length, what, also=math.lcm(encoder.stride, mask_patch, target.stride))
    return SimMIM(encoder=encoder, head=config.head, target=target, scored=config.scored)


def build(config: PretrainConfig, session: Session) -> BuiltRun:
    """Make everything a run needs: data, model, optimizer, schedule."""
    processes, folder = session.processes, session.folder
    source, held_out = open_alike(
        processes, lambda: _open(config.data), lambda opened: [each for each in opened if each is not None]
    )
    statistics = statistics_of(config.data, source, session, seed=config.seed)
    torch.manual_seed(seed_of(config.seed, "weights"))
    model = build_model(config, statistics)
    model.encoder.checkpoint_blocks(config.machine.checkpointing)
    processes.place(model, precision=config.machine.precision)
    masks = draw_masks(config, model, batch=min(config.output.pictures, len(held_out or source)), step=-1)
    schedule = build_schedule(config, images=len(source))
    shown: list[_Shown] = []
    feed = feed_images(
        config,
        session,
        source,
        statistics,
        schedule=schedule,
        accompany=_with_masks(config, model, shown),
        weigh=None if config.data.invalid is None else lambda more: float(model.score_map(*more[:2]).sum()),
    )
    run = assemble(
        config,
        session,
        module=model,
        groups=_groups(config, model),
        schedule=schedule,
        feed=feed,
        about={"recipe": to_tree(config), **_numbers(statistics)},
        quarantine=open_quarantine(session, source.listed, source.problems, share=config.data.bad_share),
    )
    fixed = config.data.view_samples(held_out or source, statistics.channels, seed=config.seed, centred=True)
    gallery = Gallery(model, samples=fixed, statistics=statistics, masks=masks)

    judge = _Judge(model, gallery, _open_monitor(config, model, statistics, processes), feed, folder, run.precision)

    def finish() -> None:
        weights = processes.collect(model.encoder.backbone.state_dict())
        processes.only_main(lambda: _save_encoder(folder.path / ENCODER_FILE, config, model, weights, statistics))

    derived = {**_derived(config, run, source, statistics), "hidden_share": float(masks.float().mean())}
    return BuiltRun(
        replace(run, evaluate=judge.evaluate, numbers=_distance_of_masks(config, model, processes, shown)),
        derived,
        finish,
    )


def _derived(config: PretrainConfig, run: Run, source: Source, statistics: Statistics) -> dict[str, Any]:
    reads = {f"target.{name}": path for name, path in getattr(config.target, "reads", {}).items()}
    return {**describe(run, source, reads=reads), **_numbers(statistics)}


def _open_monitor(
    config: PretrainConfig, model: SimMIM, statistics: Statistics, processes: Processes
) -> Monitor | None:
    """The labelled images that features are judged on, in every process that will be asked."""
    if not config.monitor.data:
        return None

    def open_it() -> Monitor:
        return Monitor(config.monitor, model, statistics, seed=config.seed)

    return open_it() if processes.sharded else processes.only_main(open_it)


@dataclass(frozen=True)
class _Judge:
    """Judges the model on the fixed images and by the monitor, and draws them."""

    model: SimMIM
    gallery: Gallery
    monitor: Monitor | None
    feed: Feed
    folder: RunFolder
    precision: Precision

    def evaluate(self, step: int) -> dict[str, float]:
        """The numbers behind a step, the same in every process; the picture is written by the main one."""
        processes, drawings = self.feed.processes, list[Drawing]()

        def ask() -> dict[str, float]:
            numbers, drawing = self._judge_and_draw(step)
            drawings.append(drawing)
            return numbers

        numbers = processes.ask(self.model, ask, precision=self.precision)
        processes.only_main(lambda: drawings[0].write(self.folder.pictures / f"step_{step:08d}.png"))
        return numbers

    def _judge_and_draw(self, step: int) -> tuple[dict[str, float], Drawing]:
        numbers = self.gallery.judge()
        self.feed.note(self.gallery.problems)
        note = ", ".join(f"{name.removeprefix('fixed_loss_')} {value:.3f}" for name, value in numbers.items())
        _log.info("step %d, fixed images: %s", step, note)
        drawing = self.gallery.draw(note=f"step {step}: {note}")
        return {**numbers, **(self.monitor.judge() if self.monitor else {})}, drawing


def _distance_of_masks(
    config: PretrainConfig, model: SimMIM, processes: Processes, shown: list[_Shown]
) -> Callable[[int], dict[str, float]]:
    """AvgDist of a few of a step's masks, on the valid part of what the main process was shown where there is such."""

    def of_valid() -> dict[str, float]:
        masks, valid = shown[-1]
        holes = holes_of(masks, valid[:, None])
        defined = (holes & valid).flatten(1).any(dim=1) & (~holes & valid).flatten(1).any(dim=1)
        masks, valid = masks[defined][:_MASKS_MEASURED], valid[defined][:_MASKS_MEASURED]
        patch_size = model.encoder.patch_size
        return {"avgdist": average_distance(masks, patch_size=patch_size, valid=valid)} if len(masks) else {}

    def numbers(step: int) -> dict[str, float]:
        if config.data.invalid is not None:
            return processes.from_main(of_valid)
        masks = draw_masks(config, model, batch=config.batch, step=step)[:_MASKS_MEASURED]
        hidden = masks.flatten(1).float().mean(dim=1)
        defined = masks[(hidden > 0) & (hidden < 1)]
        return {"avgdist": average_distance(defined, patch_size=model.encoder.patch_size)} if len(defined) else {}

    return numbers


def _numbers(statistics: Statistics) -> dict[str, Any]:
    return {"channels": statistics.channels, "mean": statistics.mean, "std": statistics.std}


def _groups(config: PretrainConfig, model: SimMIM) -> list[Group]:
    exempt = model.encoder.no_decay_as_run if config.decay_as_run else model.encoder.no_decay
    return group_parameters(model.named_parameters(), weight_decay=config.optimizer.weight_decay, exempt=exempt)


def _open(data: DataConfig) -> tuple[Source, Source | None]:
    """The images to train on, and those that are held out for judging, if any; the same ones for every seed."""
    source = open_images(data)
    return hold_out(source, data.held_out / len(source), seed=0) if data.held_out else (source, None)


def draw_masks(config: PretrainConfig, model: SimMIM, *, batch: int, step: int) -> Mask:
    """The masks of a whole global batch, a pure function of seed and step; step -1 is that of the pictures."""
    generator = torch.Generator().manual_seed(seed_of(config.seed, "masks", step))
    encoder = model.encoder
    return config.masking(batch, image_size=encoder.image_size, patch_size=encoder.patch_size, generator=generator)


def _with_masks(config: PretrainConfig, model: SimMIM, shown: list[_Shown]) -> Accompany:
    """Give every micro batch its part of the step's masks; its share of the loss is its share of what is scored.

    `shown` keeps the masks and the valid pixels of the last micro batch, where only a part of the pixels is valid.
    """

    @functools.lru_cache(maxsize=1)
    def masks_of(step: int) -> tuple[Mask, int]:
        masks = draw_masks(config, model, batch=config.batch, step=step)
        hidden = int(masks.sum())
        if not hidden:
            raise ValueError(f"the masks of step {step} hide nothing at all, so there is nothing to predict")
        return masks, hidden

    def accompany(step: int, batch: Batch, place: slice) -> tuple[tuple[Any, ...], float]:
        masks, hidden = masks_of(step)
        mine = masks[place]
        if batch.valid is not None:
            mine = hide_valid(mine, batch.valid)
            shown[:] = [(mine, batch.valid)]
            share = 1.0  # how much of it is scored, the feed weighs
        else:
            share = len(batch) / config.batch if config.scored == "everywhere" else int(mine.sum()) / hidden
        return (mine, batch.valid, model.arrange(mine)), share

    return accompany


def _save_encoder(
    path: Path, config: PretrainConfig, model: SimMIM, weights: Mapping[str, Tensor], statistics: Statistics
) -> None:
    save_encoder(path, weights, about_encoder(config, model, statistics))


def about_encoder(config: PretrainConfig, model: SimMIM, statistics: Statistics) -> EncoderFile:
    """What the file of its encoder says beside the weights."""
    encoder = model.encoder
    return EncoderFile(
        architecture=encoder.architecture.name,
        arguments=encoder.architecture.arguments,
        image_size=encoder.image_size,
        channels=encoder.in_channels,
        mean=statistics.mean,
        std=statistics.std,
        recipe=write_yaml(config),
        version=__version__,
    )


def about_of(state: Mapping[str, Any]) -> tuple[PretrainConfig, Statistics]:
    """Recipe and statistics as a checkpoint says them.

    Raises:
        ValueError: where it is no checkpoint of a pre-training.
    """
    recipe = state.get("recipe", {})
    if recipe.get("task") != "pretrain":
        raise ValueError(f"this checkpoint is of the task {recipe.get('task')!r}, not of a pre-training")
    config = PretrainConfig.model_validate_json(json.dumps(recipe))
    return config, Statistics(state["channels"], tuple(state["mean"]), tuple(state["std"]), 0)
