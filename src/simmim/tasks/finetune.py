"""Fine-tuning: a classifier on a pre-trained encoder, deeper layers moving faster than shallow ones."""

import json
import math
import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Literal, cast

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from simmim.config import Settings, to_tree, write_yaml
from simmim.data import (
    Appearance,
    AugmentConfig,
    Batch,
    BatchAugment,
    LabelledDataConfig,
    RandAugment,
    Samples,
    Source,
    UnreadableImage,
    evaluation_batches,
)
from simmim.encoders import checkpoint_blocks, layers_of
from simmim.engine.distributed import MachineConfig
from simmim.engine.folder import OutputConfig, RunFolder
from simmim.engine.optimizer import Group, OptimizerConfig, group_parameters, layer_decay
from simmim.engine.precision import Precision
from simmim.engine.schedule import Schedule, ScheduleConfig
from simmim.files import write_text_atomically
from simmim.seeds import seed_of
from simmim.tasks.agreement import open_alike
from simmim.tasks.classifier import Classified, Classifier, build_classifier, logits_of
from simmim.tasks.feed import Feed
from simmim.tasks.labelled import LabelledImages, open_labelled, samples_of, samples_to_judge, statistics_of
from simmim.tasks.load import encoder_path
from simmim.tasks.report import RESULT_FILE, renew
from simmim.tasks.training import (
    BuiltRun,
    Session,
    assemble,
    build_schedule,
    describe,
    open_quarantine,
    train_in_folder,
)
from simmim.units import ImageCount
from simmim.version import __version__
from simmim.weights import CLASSIFIER_FILE, EncoderFile, read_encoder, save_encoder

_TRIED = 32


class FinetuneOptimizerConfig(OptimizerConfig, frozen=True):
    """AdamW as official fine-tuning runs it."""

    lr: float = Field(default=1.25e-3, gt=0)
    """Peak learning rate for a batch of lr_for_batch images; scaled with the real batch, never rewritten."""


class FinetuneConfig(Settings, frozen=True):
    """A fine-tuning run. Everything above `machine` decides the result."""

    task: Literal["finetune"] = "finetune"
    """What the run does."""
    encoder: str | None = None
    """A run of pre-training, or of fine-tuning, whose head is left behind; or its file."""
    weights: Literal["pretrained", "random"] = "pretrained"
    """Whether the encoder starts as it was trained, or at random as a comparison."""
    drop_path: float = Field(default=0.1, ge=0, lt=1)
    """Stochastic depth: the chance that a residual branch is skipped, rising to this value at the last block."""
    layer_decay: float = Field(default=0.9, gt=0, le=1)
    """What the learning rate is multiplied by from each layer to the one before it."""
    window: int | None = Field(default=None, gt=0)
    """Tokens a side of an attention window, of Swin and SwinV2; that of the encoder, in proportion to the image size, if
    not given."""
    label_smoothing: float = Field(default=0.1, ge=0, lt=1)
    """Share of the certainty that is taken from the true class and spread over all."""
    augment: AugmentConfig = AugmentConfig()
    """What is done to training images beside the crop."""
    ema: float | None = Field(default=None, gt=0, lt=1)
    """Decay a step of a running average of the weights, such as 0.9999, which is then what is judged and saved; null for
    none, as published."""
    data: LabelledDataConfig = LabelledDataConfig()
    """Where the labelled images come from and how they are shown."""
    optimizer: FinetuneOptimizerConfig = FinetuneOptimizerConfig()
    """How the weights move."""
    schedule: ScheduleConfig = ScheduleConfig()
    """How long it takes, and how the learning rate moves."""
    batch: ImageCount = Field(default=2048, gt=0)
    """Images a step, over all processes."""
    seed: int = Field(default=0, ge=0)
    """What all randomness is derived from."""
    machine: MachineConfig = MachineConfig()
    """Speed and memory; changes the result by no more than rounding and the order of drop path's noise."""
    output: OutputConfig = OutputConfig()
    """What is written, and how often; changes no result."""


def finetune(config: FinetuneConfig, *, out: str | Path, resume: bool = False) -> RunFolder:
    """Fine-tune a classifier to the end of its run.

    Args:
        config: the recipe, with `encoder` and `data.source` in it.
        out: folder of the run; it must be new, unless `resume` is set.
        resume: continue a run that was cut, or begin it where there is nothing yet.

    Returns:
        The folder, which holds `classifier.safetensors` and `result.json` when the run is complete.
    """
    folder = train_in_folder(config, build, out=out, resume=resume, machine=config.machine)
    if config.encoder is not None and int(os.environ.get("RANK", "0")) == 0:
        renew(config.encoder)  # its page names the classifiers beside it
    return folder


def build(config: FinetuneConfig, session: Session) -> BuiltRun:
    """Make everything a run needs: data, classifier, optimizer, schedule."""
    processes = session.processes
    if config.encoder is None:
        raise ValueError("no encoder was named; give the folder of a pre-training run")
    encoder_file = encoder_path(config.encoder)
    weights, about = read_encoder(encoder_file)
    images = open_alike(
        processes,
        lambda: open_labelled(config.data, seed=config.seed),
        lambda opened: (opened.training, opened.held_out),
    )
    classes = images.training.classes
    image_size = config.data.image_size or about.image_size
    torch.manual_seed(seed_of(config.seed, "weights"))
    built = build_classifier(
        about,
        weights if config.weights == "pretrained" else None,
        classes=len(classes),
        drop_path=config.drop_path,
        image_size=image_size,
        window=config.window,
    )
    about = replace(about, image_size=image_size, arguments=built.arguments, classes=classes)
    about = replace(about, recipe=write_yaml(config), version=__version__)
    model = Classifier(built.backbone, label_smoothing=config.label_smoothing, ema=config.ema)
    checkpoint_blocks(model.backbone, config.machine.checkpointing)
    processes.place(model, precision=config.machine.precision)
    schedule = build_schedule(config, images=len(images.training))
    feed = _feed(config, session, images, about, schedule=schedule)
    judge = _Judge(model, feed, samples_to_judge(config.data, about, images.held_out, seed=config.seed), config.machine)
    run = assemble(
        config,
        session,
        module=model,
        groups=classifier_groups(model, config),
        schedule=schedule,
        feed=feed,
        about={"recipe": to_tree(config)},
        quarantine=open_quarantine(session, images.listed, images.problems, share=config.data.bad_share),
    )
    run = replace(run, values=_values, evaluate=judge.evaluate, after_step=model.move_average)
    parameters = sum(parameter.numel() for parameter in model.backbone.parameters())
    derived = {**describe(run, images.training, reads={"encoder": encoder_file}), "parameters": parameters}
    derived |= {
        "pretrained": str(encoder_file.resolve().parent),
        "held_out_images": len(images.held_out),
        "classes": classes,
    }
    return BuiltRun(run, derived, finish=_finisher(session.folder, about, judge))


def _feed(
    config: FinetuneConfig, session: Session, images: LabelledImages, about: EncoderFile, *, schedule: Schedule
) -> Feed:
    """The training images, augmented: each for itself in the loader and when it is erased, then mixed."""
    processes, machine = session.processes, config.machine
    augment = processes.from_main(lambda: _rand_augment(config, about, images.training))
    batch_augment = BatchAugment(
        config.augment, classes=len(about.classes), label_smoothing=config.label_smoothing, seed=config.seed
    )
    batch_augment.check(batch=config.batch, micro_batch=machine.micro_batch, world=processes.world)

    def finish(step: int, batch: Batch, place: slice, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        pixels, labels = inputs
        epoch = step // schedule.steps_per_epoch
        indices = cast("list[int]", batch.indices.tolist())
        pixels = batch_augment.erase(pixels, epoch=epoch, indices=indices)
        return batch_augment.mix(pixels, labels, step=step, first=place.start)

    appearance = Appearance(config.data.interpolation, augment)
    return Feed(
        samples=samples_of(
            config.data, about, images.training, view=config.data.view, appearance=appearance, seed=config.seed
        ),
        statistics=statistics_of(about),
        processes=processes,
        batch=config.batch,
        seed=config.seed,
        total_steps=schedule.total_steps,
        machine=machine,
        accompany=lambda step, batch, place: ((batch.labels,), len(batch) / config.batch),
        finish=finish,
    )


def _values(output: Classified) -> dict[str, Tensor]:
    return {"loss": output.loss, "train_accuracy": output.accuracy}


def _rand_augment(config: FinetuneConfig, about: EncoderFile, source: Source) -> RandAugment | None:
    """RandAugment, tried on the first image that can be read: a wrong kind of images is said before a run begins."""
    policy = config.augment.rand_augment
    if policy is None:
        return None
    found = RandAugment(policy, about.image_size, about.mean, config.data.interpolation)
    for index in range(min(len(source), _TRIED)):
        with suppress(UnreadableImage, OSError):  # it is met again in training, and noted there
            pixels = source.open(index, max_pixels=config.data.max_pixels).pixels()
            found.check(channels=about.channels, eight_bit=pixels.dtype == torch.uint8)
            break
    return found


def classifier_groups(model: Classifier, config: FinetuneConfig) -> list[Group]:
    """The parameters by layer and decay; the head has the learning rate of the recipe."""
    layers = layers_of(model.backbone)
    prefix = "backbone."
    return group_parameters(
        ((prefix + name, parameter) for name, parameter in model.backbone.named_parameters()),
        weight_decay=config.optimizer.weight_decay,
        exempt=layers.no_decay,
        lr_scale=layer_decay(
            config.layer_decay,
            layer_of=lambda name: layers.layer_of(name.removeprefix(prefix)),
            num_layers=layers.num_layers,
        ),
    )


class _Judge:
    """Measures the accuracy on the images that were held out, every one counted once over all processes."""

    def __init__(self, model: Classifier, feed: Feed, samples: Samples, machine: MachineConfig) -> None:
        self.model, self._feed, self._samples, self._machine = model, feed, samples, machine
        self.processes = feed.processes
        self._precision = Precision(machine.precision, feed.processes.device)
        self.latest: dict[str, float] = {}
        self.judged = 0
        """Images that could be read, over all processes."""

    def evaluate(self, step: int) -> dict[str, float]:
        """Accuracy and loss behind a step."""
        was_training = self.model.training
        self.model.eval()
        right = loss = count = 0.0
        batches = 0
        for batch, logits in logits_of(self.model.judged, self._batches(), self._feed.images, self._precision):
            self._feed.note(batch.problems)
            batch, logits = batch.readable(), logits[~batch.replaced]
            labels = batch.labels.to(logits.device)
            right += float((logits.argmax(dim=1) == labels).sum())
            loss += float(F.cross_entropy(logits, labels, reduction="sum"))
            count += len(batch)
            batches += 1
        self._keep_company(batches)
        self.model.train(was_training)
        right, loss, count = self.processes.sum(right, loss, count)
        if not count:
            raise ValueError("none of the images that were held out can be read, so nothing can be judged")
        self.judged = int(count)
        self.latest = {"accuracy": right / count, "held_out_loss": loss / count}
        return self.latest

    def _keep_company(self, batches: int) -> None:
        """Where weights are spread, a process with fewer batches than the first still gives its part to it."""
        if self.processes.sharded:
            most = math.ceil(math.ceil(len(self._samples) / self.processes.world) / self._size)
            empty = torch.zeros(1, self._samples.channels, *self._samples.size, device=self.processes.device)
            for _ in range(most - batches):
                with torch.no_grad(), self._precision.autocast():
                    self.model.judged(empty)

    @property
    def _size(self) -> int:
        """Images judged at a time."""
        return self._machine.micro_batch or max(self._feed.batch // self.processes.world, 1)

    def _batches(self) -> Iterable[Batch]:
        rank, world = self.processes.rank, self.processes.world
        return evaluation_batches(
            self._samples, batch=self._size, workers=self._machine.workers, rank=rank, world=world
        )


def _finisher(folder: RunFolder, about: EncoderFile, judge: _Judge) -> Callable[[], None]:
    def finish() -> None:
        numbers = judge.latest or judge.evaluate(0)  # a run that was cut behind its last step judges again
        weights = judge.processes.collect(judge.model.judged.state_dict())
        judge.processes.only_main(lambda: write(numbers, weights))

    def write(numbers: dict[str, float], weights: dict[str, Tensor]) -> None:
        save_encoder(folder.path / CLASSIFIER_FILE, weights, about)
        result = {**numbers, "images": judge.judged, "classes": len(about.classes)}
        write_text_atomically(folder.path / RESULT_FILE, json.dumps(result, indent=2) + "\n")

    return finish
