"""A run, built and ready: what the loop needs, with precision, processes and compilation already applied."""

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from simmim.engine.checkpoint import pack, write_checkpoint
from simmim.engine.distributed import Processes
from simmim.engine.folder import OutputConfig, RunError, RunFolder
from simmim.engine.metrics import Meter, MetricsLog, peak_memory
from simmim.engine.optimizer import OptimizerConfig, clip_gradients
from simmim.engine.precision import Precision
from simmim.engine.products import Products
from simmim.engine.progress import Clock
from simmim.engine.saving import InParts, OneFile, Saver
from simmim.engine.schedule import Schedule
from simmim.units import Duration


class MicroBatch(NamedTuple):
    """A part of a step that is computed at once."""

    inputs: tuple[Any, ...]
    """What the module is called with: tensors, tuples of them, or None for what it may do without."""
    share: float
    """Part of the step's loss that this part carries; all parts of all processes add up to 1."""
    last: bool
    """Whether the step is complete with it."""


def _no_numbers(step: int) -> dict[str, float]:
    return {}


@dataclass
class Run:
    """Everything the loop needs. Made by a task; only the counters change."""

    folder: RunFolder
    bare: nn.Module
    """The module whose weights are saved."""
    module: nn.Module
    """The same module as the loop calls it: inputs of a micro batch -> an output with a `.loss`."""
    optimizer: torch.optim.Optimizer
    optimizer_config: OptimizerConfig
    schedule: Schedule
    output: OutputConfig
    precision: Precision
    processes: Processes
    batch: int
    """Images a step, over all processes."""
    batches: Callable[[int], Iterator[Iterable[MicroBatch]]]
    """The steps from one on, each an iterable of this process's micro batches."""
    micro_batches: int
    """How many micro batches a step has in this process."""
    begin_step: Callable[[int], None]
    """Seeds the layers' own noise for a step."""
    about: Mapping[str, Any]
    """What the task says of the run in every checkpoint: enough to build the module again."""
    products: Products = "auto"
    """Which library multiplies matrices on a CPU."""
    values: Callable[[Any], Mapping[str, Tensor]] = lambda output: {"loss": output.loss}
    """The scalars of an output that are averaged and reported, the loss among them."""
    evaluate: Callable[[int], dict[str, float]] = _no_numbers
    """Judges the run behind a step, or draws pictures; returns numbers for the report."""
    numbers: Callable[[int], dict[str, float]] = _no_numbers
    """What the task has to report of a step beside the means; the same in every process."""
    at_report: Callable[[], None] = lambda: None
    """What the task does at every report and before every checkpoint."""
    after_report: Callable[[], None] = lambda: None
    """What is done in the main process when a report is written."""
    after_step: Callable[[int], None] = lambda step: None
    """What the task does behind every step; usually nothing."""

    step: int = 0
    """Steps that are done."""
    skipped: int = 0
    """Steps that were skipped because loss or gradient was not finite."""
    skipped_in_a_row: int = 0
    meter: Meter = field(default_factory=Meter)
    clock: Clock = field(default_factory=Clock)

    @property
    def total_steps(self) -> int:
        """Length of the run in steps."""
        return self.schedule.total_steps

    @property
    def finished(self) -> bool:
        """Whether every step is done."""
        return self.step >= self.total_steps

    def due(self, every: Duration) -> bool:
        """Whether something that happens every so often, and at the end, happens behind the step just done."""
        return self.finished or self.step % max(every.steps(self.schedule.steps_per_epoch), 1) == 0

    def take_step(self, values: Meter, *, micro: MicroBatch, signal: int) -> int:
        """Clip once, step once; or skip where loss or gradient is not finite in any process.

        Args:
            values: the scalars of this step, summed over its micro batches.
            micro: the last micro batch, kept for the replay file.
            signal: number of the signal this process was sent, or 0.

        Returns:
            The number of the signal that any process was sent, or 0: all stop behind the same step.

        Raises:
            RunError: after `optimizer.max_skipped` skipped steps in a row.
        """
        self.precision.scaler.unscale_(self.optimizer)
        norm = clip_gradients(self.optimizer, self.optimizer_config.clip_norm)
        loss_is_finite = values.is_finite()
        finite = loss_is_finite and bool(norm.isfinite())
        broken, overflown, signal_of_any = self.processes.largest(not loss_is_finite, not finite, signal)
        if overflown:
            self.skipped += 1
            self.skipped_in_a_row += int(bool(broken) or self.precision.at_its_limit)
        else:
            self.precision.scaler.step(self.optimizer)
            # Every process has the same norm; reports add up over processes.
            self.meter.add_step(values, gradient_norm=norm / self.processes.world)
            self.skipped_in_a_row = 0
        self.precision.scaler.update()
        self.step += 1
        if self.skipped_in_a_row >= self.optimizer_config.max_skipped:
            self._give_up(micro, values)
        self.optimizer.zero_grad(set_to_none=True)
        return int(signal_of_any)

    def _give_up(self, micro: MicroBatch, values: Meter) -> None:
        self._saver.wait()
        replay = self.folder.path / f"replay_step_{self.step - 1:08d}.safetensors"
        tensors = self.processes.collect(pack(self.bare, self.optimizer)) | {
            f"input/{i}": value for i, value in enumerate(micro.inputs) if isinstance(value, Tensor)
        }
        state = {**self.about, "step": self.step - 1, "values": str(values.sums())}
        self.processes.only_main(lambda: write_checkpoint(replay, tensors, state))
        raise RunError(
            f"loss or gradient was not finite in {self.skipped_in_a_row} steps in a row, so the run stopped at step "
            f"{self.step - 1}. The weights are still finite, the newest checkpoint is whole. {replay.name} holds the weights "
            "and the last micro batch of the main process, to look for the cause. What often helps: a smaller "
            "optimizer.lr, a longer schedule.warmup, machine.precision=bf16 or fp32"
        )

    def report(self, log: MetricsLog | None, numbers: Mapping[str, float]) -> dict[str, Any]:
        """The means since the last report over all processes, written where this process has a log."""
        sums = self.meter.sums()
        totals = self.processes.sum(*sums.values())
        means = {name: total / self.meter.steps for name, total in zip(sums, totals, strict=True)}
        row: dict[str, Any] = {
            "step": self.step,
            "epoch": self.step / self.schedule.steps_per_epoch,
            "loss": means.pop("loss", None),  # null where every step since the last report was skipped
            "lr": self.schedule.lr(self.step - 1),
            **self.clock.report(),
            **peak_memory(self.processes.device),
            **means,
            **self.numbers(self.step - 1),
            **numbers,
            "skipped_steps": self.skipped,
        }
        self.meter = Meter()
        self.at_report()
        self.processes.from_main(lambda: log.write(row) if log else None)
        self.processes.only_main(self.after_report)
        return row

    @functools.cached_property
    def _saver(self) -> Saver:
        make = InParts if self.processes.sharded else OneFile
        return make(self.folder.checkpoints, self.bare, self.optimizer, self.processes, keep=self.output.keep)

    def save(self, *, at_once: bool = True) -> None:
        """Write a checkpoint of the step just done.

        Args:
            at_once: whether it must lie there when this returns; else it may be written while the run goes on.
        """
        self.at_report()
        state = {
            **self.about,
            "skipped": self.skipped,
            "skipped_in_a_row": self.skipped_in_a_row,
            "meters": self.processes.gather(self.meter.state()),
            "scaler": self.precision.scaler.state_dict(),
        }
        self._saver.save(self.step, state)
        if at_once:
            self._saver.wait()

    def restore(self) -> None:
        """Go on from the newest checkpoint that is whole, if there is one."""
        state = self._saver.restore()
        if state is None:
            return
        self.step, self.skipped = state["step"], state["skipped"]
        self.skipped_in_a_row = state["skipped_in_a_row"]
        if state["scaler"]:
            self.precision.scaler.load_state_dict(state["scaler"])
        self.meter = self._own_meter(state["meters"])

    def _own_meter(self, meters: list[dict[str, Any]]) -> Meter:
        """This process's sums; another number of processes than before leaves all of them to the first."""
        if len(meters) == self.processes.world:
            return Meter(**meters[self.processes.rank])
        names = meters[0]["sums"]
        total = {name: sum(meter["sums"].get(name, 0.0) for meter in meters) for name in names}
        mine = total if self.processes.is_main else dict.fromkeys(names, 0.0)
        return Meter(sums=mine, steps=meters[0]["steps"])
