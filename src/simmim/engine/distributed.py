"""One process or many: who am I, what do the others say, and the module that keeps them together."""

import os
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal, TypeVar, cast

import torch
import torch.distributed as dist
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.fsdp import FSDPModule
from torch.distributed.rendezvous import rendezvous  # pyright: ignore[reportUnknownVariableType]
from torch.nn.parallel import DistributedDataParallel

from simmim.config import Settings
from simmim.engine.allocator import keep_freed_memory
from simmim.engine.precision import Precision, PrecisionName
from simmim.engine.products import Products
from simmim.engine.sharding import gather, shard, sync_with
from simmim.units import ImageCount

T = TypeVar("T")
AnyModule = TypeVar("AnyModule", bound=nn.Module)
_START = timedelta(minutes=30)
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
    parallel: Literal["ddp", "fsdp"] = "ddp"
    """How several processes share the work: each holds all weights (ddp), or a part of each (fsdp), for what is too large."""
    checkpointing: Literal["none", "selective", "blocks"] = "none"
    """What of the encoder's blocks is computed again in the backward pass: blocks, all of it, about a third slower, with the
    least memory; selective, all but linear layers and fused attention, a few per cent slower."""
    products: Products = "auto"
    """Which library multiplies matrices on a CPU in fp32: torch leaves it to PyTorch, onednn is about twice as fast on AMD
    processors with AVX-512, auto takes it there."""
    workers: int = Field(default=2, ge=0)
    """Processes that read images, for each training process; 0 reads in the training process itself."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the network runs; auto takes a GPU where there is one."""
    patience_minutes: float = Field(default=30, gt=0)
    """How long a process waits for the others before it takes them for lost and ends."""

    @model_validator(mode="after")
    def _goes_together(self) -> "MachineConfig":
        if self.parallel == "fsdp" and self.precision == "fp16":
            raise ValueError("parallel=fsdp goes with precision=bf16 or fp32; fp16 needs parallel=ddp")
        if self.parallel == "fsdp" and self.compile:
            raise ValueError("parallel=fsdp goes with compile=false; compile=true needs parallel=ddp")
        return self


@dataclass(frozen=True)
class Processes:
    """This process among its equals."""

    device: torch.device
    rank: int = 0
    world: int = 1
    parallel: Literal["ddp", "fsdp"] = "ddp"
    store: Store | None = None
    """Where processes leave words for each other, even when they no longer answer."""
    _control: Any = None

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and talks to the person."""
        return self.rank == 0

    @property
    def sharded(self) -> bool:
        """Whether weights are spread over the processes."""
        return self.world > 1 and self.parallel == "fsdp"

    def place(self, module: AnyModule, *, precision: PrecisionName) -> AnyModule:
        """The module on the device, its weights spread over the processes where they shall be.

        Parameters are others afterwards, so that optimizers are built behind it.
        """
        if self.sharded:
            shard(module, device=self.device, precision=precision)
        return module.to(self.device)

    def wrap(self, module: nn.Module) -> nn.Module:
        """A placed module as the loop calls it; gradients are averaged over the processes in its backward pass."""
        return module if self.world == 1 or self.sharded else DistributedDataParallel(module)

    def ask(self, module: nn.Module, make: Callable[[], T], *, precision: Precision) -> T:
        """What the main process finds by asking a placed module, known to all; an error is raised in all.

        Where weights are spread, every process takes part: each does the whole of `make`, which must send the same batches
        through the module in all of them, and must write nothing. It then computes in the format that parts are gathered in,
        and in float32 where every process holds all of them.
        """
        if not self.sharded:
            return self.from_main(make)
        root, made, error = cast(FSDPModule, module), list[T](), None
        root.unshard()  # for those who go round the module's own forward
        try:
            with precision.autocast():
                made.append(make())
        except (ValueError, OSError) as met:
            error = met
        root.reshard()
        self.raise_first(error)
        return self.from_main(lambda: made[0])

    def raise_first(self, error: Exception | None) -> None:
        """Raise in all processes the error that any of them met; the main process says it."""
        first = next((each for each in self.gather(error) if each is not None), None)
        if first is not None:
            if not self.is_main:
                first.add_note(SAID_BY_MAIN)
            raise first

    def collect(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Tensors that may be spread, whole, in the main process; empty in the others. Every process must ask."""
        return gather(tensors, keep=self.is_main) if self.sharded else dict(tensors)

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
        if self.world > 1 and dist.is_initialized():
            dist.destroy_process_group()


def without_sync(module: nn.Module, *, last: bool) -> AbstractContextManager[None]:
    """A context in which gradients only add up, until the last micro batch of a step."""
    if isinstance(module, FSDPModule):
        sync_with(module, last=last)
    if last or not isinstance(module, DistributedDataParallel):
        return nullcontext()
    return cast("AbstractContextManager[None]", module.no_sync())


def start_processes(
    device: Literal["auto", "cpu", "cuda"] = "auto",
    *,
    parallel: Literal["ddp", "fsdp"] = "ddp",
    patience_minutes: float = 30,
    lean: bool = False,
) -> Processes:
    """Join the processes that `torchrun` started, or be alone.

    Args:
        device: "auto" for a GPU where there is one.
        parallel: how weights lie in several processes.
        patience_minutes: how long processes wait for each other.
        lean: whether memory counts more than speed, where the C library has a say in it.

    Raises:
        ValueError: where a GPU is asked for and there is none.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("machine.device=cuda, but PyTorch sees no GPU here; use machine.device=cpu or auto")
    use_gpu = device != "cpu" and torch.cuda.is_available()
    where = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0))) if use_gpu else torch.device("cpu")
    if use_gpu:
        torch.cuda.set_device(where)
    else:
        keep_freed_memory(all_of_it=not lean)
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        return Processes(where)
    patience = timedelta(minutes=patience_minutes)
    store, rank, world = next(rendezvous("env://", timeout=_START))
    store = PrefixStore(_attempt(), store)
    words = PrefixStore("words", store)
    words.set(f"begun/{rank}", "yes")
    words.wait([f"begun/{each}" for each in range(world)], _START)  # some hosts take longer to start than others
    dist.init_process_group(
        "nccl" if use_gpu else "gloo",
        store=PrefixStore("all", store),
        rank=rank,
        world_size=world,
        timeout=patience,
    )
    control = dist.new_group(backend="gloo", timeout=patience) if use_gpu else None
    return Processes(where, rank=rank, world=world, parallel=parallel, store=words, _control=control)


def _attempt() -> str:
    """What tells a restart from the start before it, whose words torchrun keeps where all processes are on one host.

    (On several hosts the c10d rendezvous makes another store every time, and each host counts its own failures.)
    """
    alone = os.environ.get("GROUP_WORLD_SIZE", "1") == "1"
    return f"attempt {os.environ.get('TORCHELASTIC_RESTART_COUNT', '0') if alone else 'of many hosts'}"
