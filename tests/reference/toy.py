"""A run of a network so small that its gradient can be worked out by other means."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from simmim.config import load
from simmim.engine.distributed import Processes
from simmim.engine.folder import OutputConfig, RunFolder
from simmim.engine.optimizer import OptimizerConfig, build_adamw, group_parameters
from simmim.engine.precision import Precision
from simmim.engine.run import MicroBatch, Run
from simmim.engine.schedule import Schedule, ScheduleConfig

FEATURES = 4


class Output(NamedTuple):
    loss: Tensor


class Toy(nn.Module):
    """Mean squared error of one layer, with noise that a seed must govern."""

    def __init__(self, noise: float = 0.0) -> None:
        super().__init__()
        self.layer = nn.Linear(FEATURES, 1)
        self.noise = noise

    def forward(self, rows: Tensor, wanted: Tensor) -> Output:
        said = self.layer(rows)[:, 0] + self.noise * torch.randn(len(rows))
        return Output(((said - wanted) ** 2).mean())


def rows_of(step: int, count: int = 12) -> tuple[Tensor, Tensor]:
    """The data of a step, a pure function of it."""
    generator = torch.Generator().manual_seed(step)
    return torch.randn(count, FEATURES, generator=generator), torch.randn(count, generator=generator)


def in_parts(sizes: tuple[int, ...], data: Callable[[int], tuple[Tensor, Tensor]] = rows_of) -> Any:
    """Steps of micro batches of these sizes, each with its share."""

    def batches(first: int) -> Iterator[Iterable[MicroBatch]]:
        for step in range(first, 1_000_000):
            parts = [part.split(list(sizes)) for part in data(step)]
            yield [
                MicroBatch((rows, wanted), share=len(rows) / sum(sizes), last=number == len(sizes))
                for number, (rows, wanted) in enumerate(zip(*parts, strict=True), 1)
            ]

    return batches


def make_run(folder: Path, batches: Any, *, steps: int = 6, noise: float = 0.0, **settings: Any) -> Run:
    """A run in a folder; `settings` go to the optimizer, `output` and `evaluate` where their names say."""
    torch.manual_seed(0)
    toy = Toy(noise)
    output = {"log_every": "1 steps", "save_every": "100 steps", "evaluate_every": "100 steps", "progress": False}
    output |= settings.pop("output", {})
    more = {name: settings.pop(name) for name in ("evaluate", "after_step", "begin_step") if name in settings}
    config = load(OptimizerConfig, {"lr": 1e-2, "weight_decay": 0.1, **settings})
    schedule = load(ScheduleConfig, {"duration": f"{steps} steps", "warmup": "2 steps", "decay": "cosine"})
    return Run(
        folder=RunFolder(folder),
        bare=toy,
        module=toy,
        optimizer=build_adamw(group_parameters(toy.named_parameters(), weight_decay=config.weight_decay), config),
        optimizer_config=config,
        schedule=Schedule(schedule, peak_lr=config.lr, lr_scale=1.0, steps_per_epoch=3),
        output=load(OutputConfig, output),
        precision=Precision("fp32", torch.device("cpu")),
        processes=Processes(torch.device("cpu")),
        batch=12,
        batches=lambda first: _only(batches(first), steps - first),
        micro_batches=len(next(batches(0))),
        about={"name": "toy"},
        **{"begin_step": torch.manual_seed, **more},
    )


def _only(steps: Iterator[Any], count: int) -> Iterator[Any]:
    for _, step in zip(range(count), steps, strict=False):
        yield step


def weights_of(run: Run) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in run.bare.state_dict().items()}
