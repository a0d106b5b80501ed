"""A tokenizer of one's own: a small discrete autoencoder, trained on the images whose tokens will be predicted."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from simmim.config import Settings, to_tree
from simmim.data import Batch, DataConfig, Statistics, collate
from simmim.engine.distributed import MachineConfig
from simmim.engine.folder import OutputConfig
from simmim.engine.optimizer import OptimizerConfig, group_parameters
from simmim.engine.schedule import ScheduleConfig
from simmim.files import write_atomically
from simmim.report import Row, draw_rows, to_rgb
from simmim.seeds import seed_of
from simmim.shapes import Images, PixelMask
from simmim.targets import DiscreteVAE, VAEShape, save_tokenizer
from simmim.tasks.agreement import open_alike
from simmim.tasks.images import feed_images, open_images, statistics_of
from simmim.tasks.training import (
    BuiltRun,
    Session,
    assemble,
    build_schedule,
    describe,
    open_quarantine,
    train_in_folder,
)
from simmim.units import ImageCount, Pixels, check_multiple


class TokenizerConfig(Settings, frozen=True):
    """The training of a tokenizer. Everything above `machine` decides the result."""

    task: Literal["tokenizer"] = "tokenizer"
    """What the run does."""
    words: int = Field(default=512, ge=2)
    """Size of the vocabulary."""
    stride: Pixels = Field(default=8, ge=1)
    """Pixels a side of one token: a power of 2."""
    width: int = Field(default=32, ge=4, multiple_of=4)
    """Channels of the network's first group; the published one has 256."""
    blocks: int = Field(default=1, ge=1)
    """Residual blocks of each group; the published one has 2."""
    temperature: tuple[float, float] = (1.0, 0.1)
    """How soft the choice of a word is, at first and at the end."""
    balance: float = Field(default=0.1, ge=0)
    """How much it is worth that all words are used: the weight of the entropy of their use."""
    data: DataConfig
    """Where the images come from and how they are shown."""
    optimizer: OptimizerConfig = OptimizerConfig()
    """How the weights move."""
    schedule: ScheduleConfig = ScheduleConfig()
    """How long it takes, and how the learning rate moves."""
    batch: ImageCount = Field(default=64, gt=0)
    """Images a step, over all processes."""
    seed: int = Field(default=0, ge=0)
    """What all randomness is derived from."""
    machine: MachineConfig = MachineConfig()
    """Speed and memory; changes the result by no more than rounding."""
    output: OutputConfig = OutputConfig()
    """What is written, and how often; changes no result."""


class Redrawn(NamedTuple):
    """What one forward pass says."""

    loss: Tensor
    error: Tensor
    """Mean squared error of the normalised images as drawn from soft words."""
    used: Tensor
    """Words in use: the exponential of the entropy of their mean share."""


class LearningTokenizer(nn.Module):
    """The autoencoder with a choice of words that gradients go through (Gumbel softmax, arXiv 1611.01144)."""

    def __init__(self, vae: DiscreteVAE, statistics: Statistics, *, balance: float) -> None:
        super().__init__()
        self.vae, self.balance = vae, balance
        self._statistics = statistics

    def forward(self, images: Images, temperature: Tensor, valid: PixelMask | None = None) -> Redrawn:
        """Images through soft words and back, and how well the vocabulary is used.

        Args:
            images: normalised images.
            temperature: of the choice, a scalar.
            valid: where a pixel is not empty; the others need not be drawn.
        """
        scores = self.vae.scores(self._statistics.denormalise(images)).float()
        noise = -torch.empty_like(scores).exponential_().log()
        chosen = ((scores + noise) / temperature).softmax(dim=1)
        drawn = self._statistics.normalise(self.vae.draw(chosen))
        error = _mean_error(drawn.float(), images, valid)
        share = scores.softmax(dim=1).mean(dim=(0, 2, 3))
        entropy = -(share * share.clamp_min(1e-12).log()).sum()
        return Redrawn(error - self.balance * entropy / math.log(len(share)), error, entropy.exp())


def train_tokenizer(config: TokenizerConfig, *, out: Path, resume: bool = False) -> "Tokenizer":
    """Train a tokenizer and write it to a file; the run lies in a folder beside it, `FILE.run`.

    Args:
        config: the recipe, with `data.source` in it.
        out: the file, which `target.weights` of the target `tokens` reads.
        resume: continue a run that was cut, or begin it where there is nothing yet.

    Raises:
        ValueError: where recipe, data or folder do not allow it, in words for a person.
    """
    if out.suffix != ".safetensors":
        raise ValueError(
            f"--out {str(out)!r}: a tokenizer is a .safetensors file; nearest: {out.with_suffix('.safetensors')}"
        )
    results: list[Tokenizer] = []

    def build_for(config: TokenizerConfig, session: Session) -> BuiltRun:
        return build(config, session, out=out, results=results)

    train_in_folder(config, build_for, out=out.with_suffix(".run"), resume=resume, machine=config.machine)
    return results[0]


class Tokenizer(NamedTuple):
    """A trained tokenizer, and how good it is on images in the middle of the set."""

    file: str
    words: int
    used: float
    """Words in use: the exponential of the entropy of the tokens of those images."""
    error: float
    """Root of the mean squared error of the images drawn from their tokens, channels from 0 to 1."""
    picture: str


def build(config: TokenizerConfig, session: Session, *, out: Path, results: list[Tokenizer]) -> BuiltRun:
    """Make everything the run needs; its end is told to `results`."""
    processes = session.processes
    if config.machine.parallel == "fsdp":
        raise ValueError("a tokenizer is small enough for every process to hold it: machine.parallel=ddp")
    source = open_alike(processes, lambda: open_images(config.data), lambda opened: (opened,))
    statistics = statistics_of(config.data, source, session, seed=config.seed)
    torch.manual_seed(seed_of(config.seed, "weights"))
    vae = DiscreteVAE(_shape(config, statistics))
    model = LearningTokenizer(vae, statistics, balance=config.balance).to(processes.device)
    schedule = build_schedule(config, images=len(source))

    def accompany(step: int, batch: Batch, place: slice) -> tuple[tuple[Tensor, ...], float]:
        first, last = config.temperature
        now = first * (last / first) ** (step / max(schedule.total_steps - 1, 1))
        more = () if batch.valid is None else (batch.valid,)
        return (torch.tensor(now), *more), len(batch) / config.batch

    feed = feed_images(config, session, source, statistics, schedule=schedule, accompany=accompany)
    numbers: dict[str, Any] = {"channels": statistics.channels, "mean": statistics.mean, "std": statistics.std}
    run = assemble(
        config,
        session,
        module=model,
        groups=group_parameters(
            model.named_parameters(), weight_decay=config.optimizer.weight_decay, exempt=frozenset()
        ),
        schedule=schedule,
        feed=feed,
        about={"recipe": to_tree(config), **numbers},
        quarantine=open_quarantine(session, source.listed, source.problems, share=config.data.bad_share),
    )
    shown = config.data.view_samples(source, statistics.channels, seed=config.seed, centred=True)
    count = min(len(shown), 64)
    fixed = collate([shown[(0, number * len(shown) // count)] for number in range(count)])

    def finish() -> None:
        found = processes.from_main(lambda: _finish(vae, fixed, out, pictures=config.output.pictures))
        results.append(found)

    return BuiltRun(replace(run, values=_values), {**describe(run, source), **numbers}, finish)


def _mean_error(drawn: Images, images: Images, valid: PixelMask | None) -> Tensor:
    """Mean squared error of the valid pixels."""
    if valid is None:
        return F.mse_loss(drawn, images)
    squares = (drawn - images).square().mean(dim=1)
    return torch.where(valid, squares, 0).sum() / valid.sum().clamp_min(1)


def _values(said: Redrawn) -> dict[str, Tensor]:
    return {"loss": said.loss, "error": said.error, "words_used": said.used}


def _shape(config: TokenizerConfig, statistics: Statistics) -> VAEShape:
    groups = config.stride.bit_length()
    if config.stride != 2 ** (groups - 1):
        nearest = 2 ** round(math.log2(config.stride))
        raise ValueError(f"stride={config.stride} px is no power of 2; nearest: {nearest} px")
    check_multiple(config.data.image_size, config.stride, "the tokenizer's stride")
    return VAEShape(
        channels=statistics.channels,
        words=config.words,
        width=config.width,
        blocks=config.blocks,
        groups=groups,
        embedding=config.width * 4,
        mean=statistics.mean,
        std=statistics.std,
        squashed=False,
    )


def _finish(vae: DiscreteVAE, fixed: Batch, out: Path, *, pictures: int) -> Tokenizer:
    """Write the file and its picture, and measure what it is worth."""
    device = next(vae.parameters()).device
    raw = fixed.readable().images.to(device)
    images = raw if raw.is_floating_point() else raw.float() / 255
    vae.eval()
    with torch.no_grad():
        tokens = vae.tokens(images)
        drawn = vae.draw_tokens(tokens)
    share = torch.bincount(tokens.flatten(), minlength=vae.shape.words) / tokens.numel()
    used = float((-(share * share.clamp_min(1e-12).log()).sum()).exp())
    save_tokenizer(out, vae)
    picture = out.with_suffix(".png")
    low, high = images.flatten(2).amin(dim=2), images.flatten(2).amax(dim=2)
    panels = [to_rgb(each, low=low, high=high).cpu()[:pictures] for each in (images, drawn)]
    rows = [Row(pair) for pair in zip(*panels, strict=True)]
    note = f"{used:.0f} of {vae.shape.words} words in use"
    write_atomically(
        picture, lambda part: draw_rows(rows, titles=("original", "through tokens"), note=note).save(part, format="PNG")
    )
    error = float((drawn - images).square().mean().sqrt())
    return Tokenizer(str(out), vae.shape.words, used, error, str(picture))
