"""Fine-tuning: a classifier on a pre-trained encoder, deeper layers moving faster than shallow ones."""

import json
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

import torch
import torch.nn.functional as F
from pydantic import Field
from timm.optim import param_groups_layer_decay  # pyright: ignore[reportPrivateImportUsage]
from torch import Tensor, nn

from simmim.config import Settings, to_tree, write_yaml
from simmim.data import Batch, CentreCrop, LabelledDataConfig, Samples, Source, Statistics, View, evaluation_batches
from simmim.engine.distributed import MachineConfig
from simmim.engine.folder import OutputConfig, RunFolder
from simmim.engine.optimizer import Group, OptimizerConfig
from simmim.engine.precision import Precision
from simmim.engine.schedule import ScheduleConfig
from simmim.files import write_text_atomically
from simmim.seeds import seed_of
from simmim.shapes import Images
from simmim.tasks.feed import Feed
from simmim.tasks.labelled import LabelledImages, open_labelled
from simmim.tasks.load import encoder_path
from simmim.tasks.training import (
    BuiltRun,
    Session,
    assemble,
    build_schedule,
    describe,
    open_quarantine,
    train_in_folder,
)
from simmim.units import ImageCount, Size
from simmim.version import __version__
from simmim.weights import (
    CLASSIFIER_FILE,
    EncoderFile,
    load_encoder_weights,
    read_encoder,
    resize_backbone,
    save_encoder,
)

RESULT_FILE = "result.json"

_REPLACED = ("head.", "fc_norm.", "norm.")  # the classifier, and the norm that moves behind the pooling


class FinetuneOptimizerConfig(OptimizerConfig, frozen=True):
    """AdamW as official fine-tuning runs it."""

    lr: float = Field(default=1.25e-3, gt=0)
    """Peak learning rate for a batch of lr_for_batch images; scaled with the real batch, never rewritten."""


class FinetuneConfig(Settings, frozen=True):
    """A fine-tuning run. Everything above `machine` decides the result."""

    task: Literal["finetune"] = "finetune"
    """What the run does."""
    encoder: str | None = None
    """A run of pre-training, or its encoder.safetensors."""
    weights: Literal["pretrained", "random"] = "pretrained"
    """Whether the encoder starts as it was trained, or at random as a comparison."""
    drop_path: float = Field(default=0.1, ge=0, lt=1)
    """Stochastic depth: the chance that a residual branch is skipped, rising to this value at the last block."""
    layer_decay: float = Field(default=0.9, gt=0, le=1)
    """What the learning rate is multiplied by from each layer to the one before it."""
    label_smoothing: float = Field(default=0.1, ge=0, lt=1)
    """Share of the certainty that is taken from the true class and spread over all."""
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


class Classified(NamedTuple):
    """What one forward pass says."""

    loss: Tensor
    accuracy: Tensor
    """Share of the images whose class was named, a scalar."""


class Classifier(nn.Module):
    """A timm model and the loss it is trained with."""

    def __init__(self, backbone: nn.Module, *, label_smoothing: float) -> None:
        super().__init__()
        self.backbone = backbone
        self.label_smoothing = label_smoothing

    def forward(self, images: Images, labels: Tensor) -> Classified:
        """Cross-entropy against smoothed labels (batch,), and the accuracy."""
        logits = self.backbone(images).float()
        loss = F.cross_entropy(logits, labels, label_smoothing=self.label_smoothing)
        return Classified(loss, (logits.argmax(dim=1) == labels).float().mean())


def finetune(config: FinetuneConfig, *, out: str | Path, resume: bool = False) -> RunFolder:
    """Fine-tune a classifier to the end of its run.

    Args:
        config: the recipe, with `encoder` and `data.source` in it.
        out: folder of the run; it must be new, unless `resume` is set.
        resume: continue a run that was cut, or begin it where there is nothing yet.

    Returns:
        The folder, which holds `classifier.safetensors` and `result.json` when the run is complete.
    """
    return train_in_folder(config, build, out=out, resume=resume, machine=config.machine)


def build(config: FinetuneConfig, session: Session) -> BuiltRun:
    """Make everything a run needs: data, classifier, optimizer, schedule."""
    processes = session.processes
    if config.encoder is None:
        raise ValueError("no encoder was named; give the folder of a pre-training run")
    weights, about = read_encoder(encoder_path(config.encoder))
    images = processes.from_main(lambda: open_labelled(config.data, seed=config.seed))
    image_size = config.data.image_size or about.image_size
    torch.manual_seed(seed_of(config.seed, "weights"))
    backbone = build_classifier(config, about, weights, classes=len(images.training.classes), image_size=image_size)
    model = Classifier(backbone, label_smoothing=config.label_smoothing).to(processes.device)
    statistics = Statistics(about.channels, about.mean, about.std, 0)
    schedule = build_schedule(config, images=len(images.training))
    samples_of = _samples(config, statistics, image_size)
    feed = Feed(
        samples=samples_of(images.training, config.data.view),
        statistics=statistics,
        processes=processes,
        batch=config.batch,
        seed=config.seed,
        total_steps=schedule.total_steps,
        machine=config.machine,
        accompany=lambda step, batch, place: ((batch.labels,), len(batch) / config.batch),
    )
    judge = _Judge(model, feed, samples_of(images.held_out, CentreCrop()), config.machine)
    run = assemble(
        config,
        session,
        module=model,
        groups=_groups(model, config),
        schedule=schedule,
        feed=feed,
        about={"recipe": to_tree(config)},
        quarantine=open_quarantine(session, images.listed, images.problems, share=config.data.bad_share),
    )
    run = replace(
        run,
        values=_values,
        evaluate=judge.evaluate,
    )
    classes = images.training.classes
    derived = {**describe(run, images.training), "held_out_images": len(images.held_out), "classes": classes}
    about = replace(about, image_size=image_size, recipe=write_yaml(config), version=__version__)
    return BuiltRun(run, derived, finish=_finisher(session.folder, backbone, about, images, judge))


def _values(output: Classified) -> dict[str, Tensor]:
    return {"loss": output.loss, "train_accuracy": output.accuracy}


def build_classifier(
    config: FinetuneConfig, about: EncoderFile, weights: dict[str, Tensor], *, classes: int, image_size: Size
) -> nn.Module:
    """The encoder with a fresh classifier on the mean of its features; the weights must fit, or it says which do not."""
    backbone = about.create(num_classes=classes, global_pool="avg", drop_path_rate=config.drop_path)
    if config.weights == "pretrained":
        load_encoder_weights(backbone, weights, replaced=_REPLACED)
    return resize_backbone(backbone, image_size, was=about.built_for)


def _samples(config: FinetuneConfig, statistics: Statistics, image_size: Size) -> Callable[[Source, View], Samples]:
    return lambda source, view: Samples(
        source,
        view=view,
        size=image_size,
        channels=statistics.channels,
        seed=config.seed,
        bad_share=config.data.bad_share,
        max_pixels=config.data.max_pixels,
        invalid=config.data.invalid,
    )


def _groups(model: Classifier, config: FinetuneConfig) -> list[Group]:
    """timm's groups by layer, with the names of their parameters."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    spared: Callable[[], set[str]] | None = getattr(model.backbone, "no_weight_decay", None)
    exempt = {name for name, _ in model.backbone.named_parameters() if "logit_scale" in name or "cpb_mlp" in name}
    groups: list[Any] = cast(Any, param_groups_layer_decay)(
        model.backbone,
        weight_decay=config.optimizer.weight_decay,
        no_weight_decay_list=[*(spared() if spared else ()), *exempt],
        layer_decay=config.layer_decay,
    )
    return [
        Group(
            names=[names[id(parameter)] for parameter in group["params"]],
            params=group["params"],
            weight_decay=group["weight_decay"],
            lr_scale=group["lr_scale"],
        )
        for group in groups
    ]


class _Judge:
    """Measures the accuracy on the images that were held out, every one counted once over all processes."""

    def __init__(self, model: Classifier, feed: Feed, samples: Samples, machine: MachineConfig) -> None:
        self._model, self._feed, self._samples, self._machine = model, feed, samples, machine
        self.processes = feed.processes
        self._precision = Precision(machine.precision, feed.processes.device)
        self.latest: dict[str, float] = {}
        self.judged = 0
        """Images that could be read, over all processes."""

    def evaluate(self, step: int) -> dict[str, float]:
        """Accuracy and loss behind a step."""
        was_training = self._model.training
        self._model.eval()
        right = loss = count = 0.0
        with torch.no_grad():
            for batch in self._batches():
                self._feed.note(batch.problems)
                batch = batch.readable()
                if not len(batch):
                    continue
                labels = batch.labels.to(self.processes.device)
                with self._precision.autocast():
                    logits = self._model.backbone(self._feed.images(batch)).float()
                right += float((logits.argmax(dim=1) == labels).sum())
                loss += float(F.cross_entropy(logits, labels, reduction="sum"))
                count += len(batch)
        self._model.train(was_training)
        right, loss, count = self.processes.sum(right, loss, count)
        if not count:
            raise ValueError("none of the images that were held out can be read, so nothing can be judged")
        self.judged = int(count)
        self.latest = {"accuracy": right / count, "held_out_loss": loss / count}
        return self.latest

    def _batches(self) -> Iterable[Batch]:
        rank, world = self.processes.rank, self.processes.world
        size = self._machine.micro_batch or max(self._feed.batch // world, 1)
        return evaluation_batches(self._samples, batch=size, workers=self._machine.workers, rank=rank, world=world)


def _finisher(
    folder: RunFolder, backbone: nn.Module, about: EncoderFile, images: LabelledImages, judge: _Judge
) -> Callable[[], None]:
    classes = images.training.classes
    arguments = {**about.arguments, "num_classes": len(classes), "global_pool": "avg"}

    def finish() -> None:
        numbers = judge.latest or judge.evaluate(0)  # a run that was cut behind its last step judges again
        judge.processes.only_main(lambda: write(numbers))

    def write(numbers: dict[str, float]) -> None:
        save_encoder(folder.path / CLASSIFIER_FILE, backbone, replace(about, arguments=arguments, classes=classes))
        result = {**numbers, "images": judge.judged, "classes": len(classes)}
        write_text_atomically(folder.path / RESULT_FILE, json.dumps(result, indent=2) + "\n")

    return finish
