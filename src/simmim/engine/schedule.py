"""The learning rate of every step, a pure function of the step."""

import bisect
import math
from dataclasses import dataclass
from typing import Literal

from pydantic import Field, model_validator

from simmim.config import Settings
from simmim.units import Duration


class ScheduleConfig(Settings, frozen=True):
    """How long a run takes, and how its learning rate rises and falls."""

    duration: Duration = Duration(amount=100, unit="epochs")
    """Length of the run."""
    warmup: Duration = Duration(amount=10, unit="epochs")
    """Time over which the learning rate rises in a straight line from warmup_lr; where it is longer than the run, the peak
    is never reached, and the log says so."""
    decay: Literal["cosine", "multistep", "constant"] = "cosine"
    """What follows the warm-up: a cosine to min_lr, steps down at the milestones, or nothing."""
    warmup_lr: float = Field(default=1e-6, ge=0)
    """Learning rate at the start of the warm-up, scaled with the batch like the peak."""
    min_lr: float = Field(default=1e-5, ge=0)
    """Learning rate at the end of the cosine, scaled with the batch like the peak."""
    cosine_from: Literal["warmup", "start"] = "warmup"
    """Where the cosine begins: behind the warm-up, or at step 0 as in the official file lr_scheduler.py, whose learning
    rate drops a little where the warm-up ends."""
    milestones: tuple[Duration, ...] = ()
    """Times at which a multistep schedule steps down."""
    factor: float = Field(default=0.1, gt=0, lt=1)
    """What the learning rate is multiplied by at every milestone."""

    @model_validator(mode="after")
    def _complete(self) -> "ScheduleConfig":
        if (self.decay == "multistep") != bool(self.milestones):
            raise ValueError("milestones go with decay=multistep, and a multistep schedule needs at least one")
        return self


@dataclass(frozen=True)
class Schedule:
    """A schedule in steps and scaled learning rates."""

    config: ScheduleConfig
    peak_lr: float
    lr_scale: float
    """What every learning rate of the recipe was multiplied by: batch / lr_for_batch."""
    steps_per_epoch: int

    @property
    def total_steps(self) -> int:
        """Length of the run in optimizer steps."""
        return self.config.duration.steps(self.steps_per_epoch)

    @property
    def warmup_steps(self) -> int:
        """Length of the warm-up in optimizer steps."""
        return self.config.warmup.steps(self.steps_per_epoch)

    def lr(self, step: int, share: float = 1.0) -> float:
        """The learning rate of an optimizer step, counted from 0.

        `share` scales the peak alone, as for the layers of a fine-tuned encoder: the start of the warm-up and the minimum
        are the same for all, even where a small peak lies below them (official fine-tuning, through timm's scheduler).

        (The official code moves its schedule behind the optimizer, so that its step n has the value of n - 1.)
        """
        start, floor = self.config.warmup_lr * self.lr_scale, self.config.min_lr * self.lr_scale
        peak = self.peak_lr * share
        if step < self.warmup_steps:
            return start + (peak - start) * step / self.warmup_steps
        if self.config.decay == "constant":
            return peak
        if self.config.decay == "multistep":
            passed = sorted(milestone.steps(self.steps_per_epoch) for milestone in self.config.milestones)
            return peak * self.config.factor ** bisect.bisect_right(passed, step)
        begin = self.warmup_steps if self.config.cosine_from == "warmup" else 0
        share = (step - begin) / max(self.total_steps - begin, 1)
        return floor + (peak - floor) * (1 + math.cos(math.pi * min(share, 1))) / 2
