"""Which settings fit a GPU, and which of them is the cheapest."""

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import NamedTuple

from simmim.tasks.plan.machines import GPUS, Cluster
from simmim.tasks.plan.memory import Memory, Setting, Sizes, memory_of, seconds_of
from simmim.tasks.plan.network import Network, PlannedConfig, build_network
from simmim.tasks.plan.step import CHECKPOINTINGS, Flops, Step, take_step

IMAGES = 1_281_167
"""Training images of ImageNet-1K, where it is not said how many there are."""
_MORE_GPUS = 2**13
_ALIKE = 1.01  # steps that differ by less than 1 % take equally long, for all that is known
_ORDER = {name: place for place, name in enumerate(("one", "ddp", "fsdp", *CHECKPOINTINGS))}


class Option(NamedTuple):
    """A setting, and what it would cost."""

    setting: Setting
    memory: Memory
    fits: bool
    step_seconds: float


@dataclass(frozen=True)
class Plan:
    """What a recipe asks for, and how it can be had."""

    recipe: str
    overrides: Sequence[str]
    config: PlannedConfig
    network: Network
    cluster: Cluster
    images: int
    flops: dict[str, Flops]
    """Of one image by part, nothing computed again."""
    options: list[Option]
    """For each way to train, the largest micro batch that fits, or 1 image where none does."""
    as_written: Option | None
    """The recipe's own setting; None where the GPU does not know its number format."""
    advice: list[str]
    """What would help, where nothing fits."""

    @property
    def parameters(self) -> dict[str, int]:
        """By part."""
        return self.network.parameters_by_part()

    @property
    def backbone_parameters(self) -> int:
        """Of the backbone alone, without a classifier."""
        named = self.network.backbone.named_parameters()
        return sum(each.numel() for name, each in named if not name.startswith("head."))

    @property
    def share(self) -> int:
        """Images a GPU and step; the largest share, where they differ by one."""
        return -(-self.config.batch // self.cluster.gpus)

    @property
    def total_steps(self) -> int:
        """Steps of the whole run."""
        return self.config.schedule.duration.steps(self.steps_an_epoch)

    @property
    def steps_an_epoch(self) -> int:
        """Whole batches in the data set."""
        return max(self.images // self.config.batch, 1)

    @property
    def cheapest(self) -> Option | None:
        """The fastest that fits; of those that are alike, the one with the least machinery."""
        fitting = [option for option in self.options if option.fits]
        limit = min((option.step_seconds for option in fitting), default=0.0) * _ALIKE
        return min((one for one in fitting if one.step_seconds <= limit), key=_machinery, default=None)

    @property
    def least(self) -> Option:
        """What asks for the least memory."""
        return min(self.options, key=lambda option: option.memory.total)

    def images_per_second(self, option: Option) -> float:
        """Of all GPUs together."""
        return self.config.batch / option.step_seconds

    def days(self, option: Option) -> float:
        """Of the whole run."""
        return self.total_steps * option.step_seconds / 86400

    def command(self, option: Option) -> str:
        """The command line that runs it."""
        cluster, setting, machine = self.cluster, option.setting, self.config.machine
        hosts = f"--nnodes {cluster.hosts} " if cluster.hosts > 1 else ""
        start = f"torchrun {hosts}--nproc-per-node {cluster.gpus // cluster.hosts} -m simmim"
        says = {**dict(machine), "parallel": getattr(machine, "parallel", "ddp")}
        wanted = {**setting._asdict(), "parallel": says["parallel"] if setting.parallel == "one" else setting.parallel}
        words = {f"machine.{name}": value for name, value in wanted.items() if value != says[name]}
        if "machine.micro_batch" in words:
            words["machine.micro_batch"] = f"{setting.micro_batch} images"
        kept = [word for word in self.overrides if word.partition("=")[0] not in words]
        chosen = [f"{name}={value}" for name, value in words.items()]
        verb = [*self.network.verb(self.recipe), "--data", "DATA", "--out", "RUN", *kept, *chosen]
        return f"{'simmim' if cluster.gpus == 1 else start} {shlex.join(verb)}"


def make_plan(
    config: PlannedConfig,
    cluster: Cluster,
    *,
    recipe: str | Path,
    overrides: Sequence[str] = (),
    images: int | None = None,
    channels: int | None = None,
    encoder: str | Path | None = None,
    classes: int = 1000,
) -> Plan:
    """Plan what a recipe does, a pre-training or a fine-tuning, without training.

    Args:
        config: the recipe.
        cluster: the GPUs.
        recipe: its name or file, as the command that runs it should say it.
        overrides: the settings that differ from it.
        images: how many the data set has; those of ImageNet-1K if not given.
        channels: of an image, where the recipe does not say it; 3 if not given.
        encoder: for a fine-tuning, whose: a run, its file, or the recipe of a pre-training; that of `config` if not given.
        classes: of a fine-tuning.

    Raises:
        ValueError: where the network cannot be built, the batch is too small for so many GPUs or larger than the data set.
    """
    if images is not None and images < config.batch:
        raise ValueError(
            f"--images {images}: a step is a batch of {config.batch} images, so a data set has at least as many; set a smaller "
            "one, such as batch='8 images'"
        )
    if config.batch < cluster.gpus:
        raise ValueError(
            f"a batch of {config.batch} images cannot be shared by {cluster.gpus} GPUs; take --gpus {config.batch} or less, "
            f"or batch='{cluster.gpus} images' or more"
        )
    network = build_network(config, channels=channels, encoder=encoder, classes=classes)
    scout = _Scout(config, network, cluster)
    flops = scout.step("none", scout.precisions[0]).flops
    plan = Plan(
        recipe=str(recipe),
        overrides=overrides,
        config=config,
        network=network,
        cluster=cluster,
        images=images or IMAGES,
        flops=dict(flops),
        options=list(scout.options()),
        as_written=scout.as_written(),
        advice=[],
    )
    return plan if plan.cheapest else replace(plan, advice=list(scout.advice(plan)))


def _machinery(option: Option) -> tuple[int, int, int]:
    setting = option.setting
    return _ORDER[setting.parallel], _ORDER[setting.checkpointing], -setting.micro_batch


class _Scout:
    """Tries settings of one recipe."""

    def __init__(self, config: PlannedConfig, network: Network, cluster: Cluster) -> None:
        self.config, self.network, self.cluster = config, network, cluster
        self.sizes = Sizes.of(network)
        self._steps: dict[tuple[str, str], Step] = {}
        known = cluster.gpu.tflops
        own, short = config.machine.precision, "bf16" if "bf16" in known else "fp16"
        self.precisions = [own, short] if own == "fp32" else [own if own in known else short]
        self.sharded_precisions = ["fp32" if short == "fp16" else short]  # FSDP takes no fp16
        if own == "fp32":
            self.sharded_precisions = list(dict.fromkeys([own, *self.sharded_precisions]))

    def step(self, checkpointing: str, precision: str) -> Step:
        """A micro batch; the two short formats take the same memory."""
        key = checkpointing, "bf16" if precision == "fp16" else precision
        if key not in self._steps:
            self._steps[key] = take_step(self.network, checkpointing=key[0], precision=key[1])
        return self._steps[key]

    def share(self, cluster: Cluster) -> int:
        return -(-self.config.batch // cluster.gpus)

    def option(self, setting: Setting, cluster: Cluster) -> Option:
        """What a setting would cost."""
        share = self.share(cluster)
        step = self.step(setting.checkpointing, setting.precision)
        accumulation = -(-share // setting.micro_batch)
        memory = memory_of(self.sizes, step, setting, gpus=cluster.gpus, accumulation=accumulation)
        seconds = seconds_of(self.sizes, step, setting, cluster, share=share)
        return Option(setting, memory, memory.total <= cluster.room, seconds)

    def options(self) -> Iterator[Option]:
        """Every way to train, each with the largest micro batch that fits, or one image."""
        ways = ("one",) if self.cluster.gpus == 1 else ("ddp", "fsdp")
        for parallel, checkpointing in product(ways, CHECKPOINTINGS):
            for precision in self.sharded_precisions if parallel == "fsdp" else self.precisions:
                yield self.largest(parallel, checkpointing, precision, self.cluster)

    def largest(self, parallel: str, checkpointing: str, precision: str, cluster: Cluster) -> Option:
        """The largest micro batch that fits: all of the share, or a power of two that divides it."""
        share = self.share(cluster)
        sizes = [share] + [2**power for power in range(share.bit_length(), -1, -1) if share % 2**power == 0]
        option = None
        for micro_batch in sizes:
            option = self.option(Setting(parallel, checkpointing, precision, micro_batch), cluster)
            if option.fits:
                break
        assert option is not None, "there is always a micro batch of 1"
        return option

    def as_written(self) -> Option | None:
        """The recipe's own setting."""
        machine, share = self.config.machine, self.share(self.cluster)
        if machine.precision not in self.cluster.gpu.tflops:
            return None
        parallel = "one" if self.cluster.gpus == 1 else getattr(machine, "parallel", "ddp")
        micro_batch = min(machine.micro_batch or share, share)
        return self.option(Setting(parallel, machine.checkpointing, machine.precision, micro_batch), self.cluster)

    def advice(self, plan: Plan) -> Iterator[str]:
        """What would make it fit."""
        least = plan.least.setting
        for gpu in sorted(GPUS.values(), key=lambda gpu: gpu.memory_gib):
            if gpu.memory_gib > self.cluster.gpu.memory_gib and least.precision in gpu.tflops:
                other = self.option(least, replace(self.cluster, gpu=gpu))
                if other.fits:
                    yield f"--gpu {gpu.name}: {gpu.memory_gib:g} GiB would hold it"
                    break
        gpus = max(2, 2 * self.cluster.gpus)
        while gpus <= min(_MORE_GPUS, self.config.batch):
            more = replace(self.cluster, gpus=gpus)
            if self.largest("fsdp", CHECKPOINTINGS[-1], self.sharded_precisions[-1], more).fits:
                yield f"--gpus {gpus}: with FSDP each keeps 1/{gpus} of weights, gradients and optimizer"
                break
            gpus *= 2
