"""From samples to micro batches on the device: what every training task does between its loader and its module."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from torch import Tensor
from torch.utils._pytree import tree_map_only

from simmim.data import Batch, Samples, Statistics, TrainingLoader
from simmim.engine.distributed import MachineConfig, Processes
from simmim.engine.run import MicroBatch

Accompany = Callable[[int, Batch, slice], tuple[tuple[Any, ...], float]]
"""(step, batch, its place in the global batch) -> (what goes with the images, tensors or tuples of them; the batch's share of
the step's loss)."""

Weigh = Callable[[tuple[Any, ...]], float]
"""(what goes with the images) -> how much of the batch is scored, where only the images tell."""

Finish = Callable[[int, Batch, slice, tuple[Any, ...]], tuple[Any, ...]]
"""(step, batch, its place in the global batch, the inputs on the device) -> the inputs as the module is called."""


def _as_they_are(step: int, batch: Batch, place: slice, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    return inputs


class _Part(NamedTuple):
    """A micro batch before it goes to the device."""

    step: int
    batch: Batch
    place: slice
    more: tuple[Any, ...]
    share: float


@dataclass
class Feed:
    """The micro batches of this process."""

    samples: Samples
    statistics: Statistics
    processes: Processes
    batch: int
    """Images a step, over all processes."""
    seed: int
    total_steps: int
    machine: MachineConfig
    accompany: Accompany
    weigh: Weigh | None = None
    """Where given, shares are in proportion to these weights over all processes, and a step is read before it begins."""
    finish: Finish = _as_they_are
    """What is done to the inputs of a micro batch on the device, last of all."""
    _problems: dict[str, str] = field(default_factory=dict[str, str])

    def note(self, problems: Mapping[str, str]) -> None:
        """Remember bad files, path to reason, until they are taken."""
        self._problems |= problems

    def take_problems(self) -> Mapping[str, str]:
        """The bad files met since the last call, path to reason."""
        problems, self._problems = self._problems, {}
        return problems

    def loader(self, start_step: int) -> TrainingLoader:
        """What reads the images, from a step on."""
        return TrainingLoader(
            self.samples,
            batch=self.batch,
            micro_batch=self.machine.micro_batch or self.batch,
            seed=self.seed,
            start_step=start_step,
            total_steps=self.total_steps,
            workers=self.machine.workers,
            rank=self.processes.rank,
            world=self.processes.world,
        )

    def steps_from(self, start_step: int) -> Iterator[Iterable[MicroBatch]]:
        """The steps from one on, each an iterator of its micro batches."""
        loader = self.loader(start_step)
        for step, batches in enumerate(loader, start_step):
            yield self._micro_batches(step, batches, loader)

    def _micro_batches(self, step: int, batches: Iterator[Batch], loader: TrainingLoader) -> Iterator[MicroBatch]:
        if self.weigh is not None:
            yield from self._weighed(self.weigh, list(self._accompanied(step, batches, loader)))
            return
        for number, part in enumerate(self._accompanied(step, batches, loader), 1):
            yield MicroBatch(self._inputs(part), part.share, last=number == loader.micro_batches)

    def _weighed(self, weigh: Weigh, parts: list[_Part]) -> Iterator[MicroBatch]:
        weights = [weigh(part.more) for part in parts]
        # Every process asks once a step, before its first micro batch, so all of them know the same sum.
        total = self.processes.sum(sum(weights))[0] or 1.0
        for number, (part, weight) in enumerate(zip(parts, weights, strict=True), 1):
            yield MicroBatch(self._inputs(part), weight / total, last=number == len(parts))

    def _accompanied(self, step: int, batches: Iterator[Batch], loader: TrainingLoader) -> Iterator[_Part]:
        begin = loader.share_of_rank.start
        for batch in batches:
            place = slice(begin, begin + len(batch))
            begin = place.stop
            self.note(batch.problems)
            yield _Part(step, batch, place, *self.accompany(step, batch, place))

    def _inputs(self, part: _Part) -> tuple[Any, ...]:
        inputs = (self.images(part.batch), *tree_map_only(Tensor, self._to_device, part.more))
        return self.finish(part.step, part.batch, part.place, inputs)

    def images(self, batch: Batch) -> Tensor:
        """The normalised images of a batch; they cross to the device as they left the decoder."""
        valid = None if batch.valid is None else self._to_device(batch.valid)
        return self.statistics.normalise(self._to_device(batch.images), valid)

    def _to_device(self, tensor: Tensor) -> Tensor:
        return tensor.to(self.processes.device, non_blocking=True)
