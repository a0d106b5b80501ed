"""The order of a run, and the loaders that follow it.

The order is a pure function of seed and epoch; a loader is told at which step to begin and holds nothing worth saving.
"""

import gc
import os
import signal
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import KW_ONLY, dataclass
from functools import cached_property
from itertools import islice
from typing import Any, TypeAlias, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from simmim.data.samples import Batch, SampleKey, Samples, collate
from simmim.seeds import seed_of, stream

Keys: TypeAlias = list[SampleKey]


def order(seed: int, epoch: int, count: int) -> NDArray[np.int64]:
    """The order in which an epoch visits `count` images."""
    return stream(seed, "order", epoch).permutation(count)


@dataclass(frozen=True, kw_only=True)
class TrainingBatches:
    """The keys of every micro batch of one process, from `start_step` up to `total_steps`.

    A step takes the next `batch` images of its epoch's order; what is left at the end of an epoch is dropped, as in the
    official code. Of these a process takes its contiguous share, in micro batches of at most `micro_batch`.
    """

    count: int
    batch: int
    micro_batch: int
    seed: int
    start_step: int
    total_steps: int
    rank: int = 0
    world: int = 1

    def __post_init__(self) -> None:
        if self.count < self.batch:
            raise ValueError(
                f"the data set has {self.count} images, a batch needs {self.batch}; "
                f"set batch='{self.count} images' or less"
            )
        if self.batch < self.world:
            raise ValueError(
                f"a batch of {self.batch} images cannot be shared by {self.world} processes; "
                f"set batch='{self.world} images' or more"
            )
        if self.micro_batch < 1:
            raise ValueError(f"a micro batch of {self.micro_batch} images is not possible; the least is 1")

    @property
    def steps_per_epoch(self) -> int:
        """Steps that one pass over the data set has."""
        return self.count // self.batch

    @property
    def share_of_rank(self) -> slice:
        """The part of the global batch that is this process's."""
        return _share(self.batch, rank=self.rank, world=self.world)

    @property
    def micro_batches(self) -> int:
        """Micro batches that a step has on this process."""
        share = self.share_of_rank
        return -(-(share.stop - share.start) // self.micro_batch)

    def __len__(self) -> int:
        return max(0, self.total_steps - self.start_step) * self.micro_batches

    def __iter__(self) -> Iterator[Keys]:
        visited, of_epoch = np.empty(0, dtype=np.int64), -1
        for step in range(self.start_step, self.total_steps):
            epoch, position = divmod(step, self.steps_per_epoch)
            if epoch != of_epoch:
                visited, of_epoch = order(self.seed, epoch, self.count), epoch
            mine = visited[position * self.batch :][self.share_of_rank].tolist()
            for start in range(0, len(mine), self.micro_batch):
                yield [(epoch, index) for index in mine[start : start + self.micro_batch]]


@dataclass(frozen=True)
class TrainingLoader:
    """The batches of a run: iterating gives an iterator a step, which gives the step's micro batches as they arrive.

    `batch` counts the images of a step over all processes, `micro_batch` those of one forward pass here. Raises
    `ValueError` if the data set is smaller than a batch, or a batch smaller than the number of processes.
    """

    samples: Samples
    _: KW_ONLY
    batch: int
    micro_batch: int
    seed: int
    start_step: int
    total_steps: int
    workers: int
    rank: int = 0
    world: int = 1

    def __post_init__(self) -> None:
        assert self.batches.count == len(self.samples)  # makes the batches now, so that an error comes now

    @cached_property
    def batches(self) -> TrainingBatches:
        """The keys behind the batches."""
        return TrainingBatches(
            count=len(self.samples),
            batch=self.batch,
            micro_batch=self.micro_batch,
            seed=self.seed,
            start_step=self.start_step,
            total_steps=self.total_steps,
            rank=self.rank,
            world=self.world,
        )

    @property
    def steps_per_epoch(self) -> int:
        """Steps that one pass over the data set has."""
        return self.batches.steps_per_epoch

    @property
    def micro_batches(self) -> int:
        """Micro batches that a step has on this process."""
        return self.batches.micro_batches

    @property
    def share_of_rank(self) -> slice:
        """The part of the global batch that is this process's."""
        return self.batches.share_of_rank

    @cached_property
    def _loader(self) -> "DataLoader[Batch]":
        return _load(self.samples, batches=self.batches, workers=self.workers, seed=self.seed)

    def __len__(self) -> int:
        return max(0, self.total_steps - self.start_step)

    def __iter__(self) -> Iterator[Iterator[Batch]]:
        arriving = iter(self._loader)
        for _ in range(len(self)):
            step = islice(arriving, self.micro_batches)
            yield step
            for _left in step:  # a step that was not finished must not push its rest into the next
                pass


def evaluation_batches(
    samples: Samples, *, batch: int, workers: int, rank: int = 0, world: int = 1
) -> "Iterable[Batch]":
    """Every image once, in order, over all processes together; none is repeated to fill a batch."""
    share = _share(len(samples), rank=rank, world=world)
    keys = [(0, index) for index in range(share.start, share.stop)]
    batches = [keys[start : start + batch] for start in range(0, len(keys), batch)]
    return _load(samples, batches=batches, workers=workers, seed=samples.seed)


def _share(count: int, *, rank: int, world: int) -> slice:
    """The contiguous share of one process; where it does not divide, the first ones take one more."""
    whole, extra = divmod(count, world)
    start = rank * whole + min(rank, extra)
    return slice(start, start + whole + (rank < extra))


class _Loader(DataLoader[Batch]):
    """A loader whose workers are started out of reach of signals to the whole group."""

    def __iter__(self) -> Any:
        with _signals_held():
            return super().__iter__()


def _load(samples: Samples, *, batches: Iterable[Keys], workers: int, seed: int) -> "DataLoader[Batch]":
    generator = torch.Generator().manual_seed(seed_of(seed, "loader"))  # without it torch draws from its global stream
    return _Loader(
        cast(Dataset[Batch], samples),  # torch names a loader after its samples, not after what `collate` makes of them
        batch_sampler=batches,
        num_workers=workers,
        collate_fn=collate,
        pin_memory=torch.cuda.is_available(),
        worker_init_fn=_begin_worker,
        generator=generator,
        persistent_workers=workers > 0,
    )


_OF_THE_GROUP = (signal.SIGINT, signal.SIGTERM)
"""Ctrl-C and SIGTERM go to the whole group; they are the parent's to answer, which ends the workers."""


@contextmanager
def _signals_held() -> Generator[None, None, None]:
    """Hold back what the group is told until the workers, which inherit this, have left the group."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _OF_THE_GROUP)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin_worker(worker: int) -> None:
    torch.set_num_threads(1)
    gc.freeze()  # what was imported stays: the collector need not look at it again, nor copy its pages by doing so
    os.setpgid(0, 0)
    while set(_OF_THE_GROUP) & signal.sigpending():
        signal.sigwait(_OF_THE_GROUP)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _OF_THE_GROUP)
