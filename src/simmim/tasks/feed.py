"""From samples to micro batches on the device: what every training task does between its loader and its module."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from torch import Tensor

from simmim.data import Batch, Samples, Statistics, TrainingLoader
from simmim.engine.distributed import MachineConfig, Processes
from simmim.engine.run import MicroBatch

Accompany = Callable[[int, Batch, slice], tuple[tuple[Tensor, ...], float]]
"""(step, batch, its place in the global batch) -> (what goes with the images, the batch's share of the step's loss)."""

Finish = Callable[[int, Batch, slice, tuple[Tensor, ...]], tuple[Tensor, ...]]
"""(step, batch, its place in the global batch, the inputs on the device) -> the inputs as the module is called."""


def _as_they_are(step: int, batch: Batch, place: slice, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return inputs


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
    finish: Finish = _as_they_are
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
        begin = loader.share_of_rank.start
        for number, batch in enumerate(batches, 1):
            place = slice(begin, begin + len(batch))
            begin = place.stop
            self.note(batch.problems)
            more, share = self.accompany(step, batch, place)
            inputs = (self.images(batch), *map(self._to_device, more))
            inputs = self.finish(step, batch, place, inputs)
            yield MicroBatch(inputs, share, last=number == loader.micro_batches)

    def images(self, batch: Batch) -> Tensor:
        """The normalised images of a batch; they cross to the device as they left the decoder."""
        return self.statistics.normalise(self._to_device(batch.images))

    def _to_device(self, tensor: Tensor) -> Tensor:
        return tensor.to(self.processes.device, non_blocking=True)
