"""One process or many: who am I, what do the others say, and the module that keeps them together."""

import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, cast

import torch
import torch.distributed as dist
from pydantic import Field
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from simmim.config import Settings
from simmim.engine.allocator import keep_freed_memory
from simmim.engine.precision import PrecisionName
from simmim.engine.products import Products
from simmim.units import ImageCount

T = TypeVar("T")
SAID_BY_MAIN = "The main process met this error and says it."


class MachineConfig(Settings, frozen=True):
    """What decides speed and memory, and not the result: but for rounding, and for drop path, whose noise follows the
    order of the micro batches."""

    micro_batch: ImageCount | None = Field(default=None, gt=0)
    """Images that one process handles at a time; accumulation follows from it. Null for all of its share."""
    precision: PrecisionName = "fp32"
    """Number format of the network: fp32, bf16 or fp16."""
    compile: bool = False
    """Whether torch.compile makes the module."""
    checkpointing: Literal["none", "blocks"] = "none"
    """Whether every block of the encoder is computed again in the backward pass: about a third slower, with less memory."""
    products: Products = "auto"
    """Which library multiplies matrices on a CPU in fp32: torch leaves it to PyTorch, onednn is about twice as fast on AMD
    processors with AVX-512, auto takes it there."""
    workers: int = Field(default=2, ge=0)
    """Processes that read images, for each training process; 0 reads in the training process itself."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the network runs; auto takes a GPU where there is one."""


@dataclass(frozen=True)
class Processes:
    """This process among its equals."""

    device: torch.device
    rank: int = 0
    world: int = 1
    _control: Any = None

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and talks to the person."""
        return self.rank == 0

    def wrap(self, module: nn.Module) -> nn.Module:
        """The module as the loop calls it; gradients are averaged over the processes in its backward pass."""
        return DistributedDataParallel(module) if self.world > 1 else module

    def sum(self, *numbers: float) -> list[float]:
        """The numbers, each added up over all processes."""
        return list(numbers) if self.world == 1 else self._reduce(numbers, dist.ReduceOp.SUM)

    def _reduce(self, numbers: tuple[float, ...], operation: Any) -> list[float]:
        tensor = torch.tensor(numbers, dtype=torch.float64)
        dist.all_reduce(tensor, op=operation, group=self._control)
        return cast("list[float]", tensor.tolist())

    def largest(self, *numbers: float) -> list[float]:
        """The numbers, each the largest that any process has."""
        return list(numbers) if self.world == 1 else self._reduce(numbers, dist.ReduceOp.MAX)

    def gather(self, item: T) -> list[T]:
        """What every process says, in the order of their ranks."""
        if self.world == 1:
            return [item]
        items: list[Any] = [None] * self.world
        dist.all_gather_object(items, item, group=self._control)
        return items

    def from_main(self, make: Callable[[], T]) -> T:
        """What the main process makes, known to all; an error it meets is raised in all."""
        if self.world == 1:
            return make()
        answer: list[Any] = [None, None]
        if self.is_main:
            try:
                answer[0] = make()
            except (ValueError, OSError) as error:
                answer[1] = error
        dist.broadcast_object_list(answer, src=0, group=self._control)
        if answer[1] is not None:
            if not self.is_main:
                answer[1].add_note(SAID_BY_MAIN)
            raise answer[1]
        return answer[0]

    def only_main(self, make: Callable[[], T]) -> T | None:
        """What the main process makes, for itself alone; an error it meets is raised in all."""
        made: list[T] = []
        self.from_main(lambda: made.append(make()))
        return made[0] if made else None

    def close(self) -> None:
        """Take leave of the others."""
        if self.world > 1:
            dist.destroy_process_group()


def without_sync(module: nn.Module, *, last: bool) -> AbstractContextManager[None]:
    """A context in which gradients only add up, until the last micro batch of a step."""
    if last or not isinstance(module, DistributedDataParallel):
        return nullcontext()
    return cast("AbstractContextManager[None]", module.no_sync())


def start_processes(device: Literal["auto", "cpu", "cuda"] = "auto") -> Processes:
    """Join the processes that `torchrun` started, or be alone.

    Raises:
        ValueError: where a GPU is asked for and there is none.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("machine.device=cuda, but PyTorch sees no GPU here; use machine.device=cpu or auto")
    world, rank = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("RANK", 0))
    use_gpu = device != "cpu" and torch.cuda.is_available()
    where = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0))) if use_gpu else torch.device("cpu")
    if use_gpu:
        torch.cuda.set_device(where)
    else:
        keep_freed_memory()
    if world == 1:
        return Processes(where)
    dist.init_process_group("nccl" if use_gpu else "gloo")
    control = dist.new_group(backend="gloo") if use_gpu else None
    return Processes(where, rank=rank, world=world, _control=control)
