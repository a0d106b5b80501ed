"""AdamW over groups of parameters that say their names, their decay and their share of the learning rate."""

from collections.abc import Callable, Iterable
from typing import TypedDict

import torch
from pydantic import Field
from torch import nn

from simmim.config import Settings
from simmim.engine.sharding import whole
from simmim.units import ImageCount


class OptimizerConfig(Settings, frozen=True):
    """AdamW as the official code runs it."""

    lr: float = Field(default=2e-4, gt=0)
    """Peak learning rate for a batch of lr_for_batch images; scaled with the real batch, never rewritten."""
    lr_for_batch: ImageCount = Field(default=512, gt=0)
    """Number of images the learning rates are given for."""
    weight_decay: float = Field(default=0.05, ge=0)
    """Decay of matrices; vectors, biases and what the encoder's family exempts (positions, say) have none."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Decay rates of the running mean and of the running square."""
    eps: float = Field(default=1e-8, gt=0)
    """What keeps the division finite."""
    clip_norm: float | None = Field(default=5.0, gt=0)
    """Largest L2 norm of the gradient of a step; null for no limit."""
    max_skipped: int = Field(default=5, ge=1)
    """Steps in a row that may be skipped because loss or gradient is not finite, before the run stops."""

    def lr_scale(self, batch: int) -> float:
        """What the recipe's learning rates are multiplied by for this batch."""
        return batch / self.lr_for_batch


class Group(TypedDict):
    """Parameters that are treated alike."""

    names: list[str]
    params: list[nn.Parameter]
    weight_decay: float
    lr_scale: float
    """Its share of the peak learning rate."""


def group_parameters(
    named: Iterable[tuple[str, nn.Parameter]],
    *,
    weight_decay: float,
    exempt: Iterable[str] = (),
    lr_scale: Callable[[str], float] = lambda name: 1.0,
) -> list[Group]:
    """Split parameters by decay and learning rate.

    No decay for vectors, for biases, and where a name holds one of the `exempt` words (official file: optimizer.py).
    """
    exempt = tuple(exempt)
    groups: dict[tuple[float, float], Group] = {}
    for name, parameter in named:
        if not parameter.requires_grad:
            continue
        spared = parameter.ndim <= 1 or name.endswith(".bias") or any(word in name for word in exempt)
        key = (0.0 if spared else weight_decay, lr_scale(name))
        group = groups.setdefault(key, Group(names=[], params=[], weight_decay=key[0], lr_scale=key[1]))
        group["names"].append(name)
        group["params"].append(parameter)
    return list(groups.values())


def build_adamw(groups: list[Group], config: OptimizerConfig) -> torch.optim.AdamW:
    """The optimizer, in PyTorch's fused form; the loop sets the learning rate of every step."""
    return torch.optim.AdamW([dict(group) for group in groups], lr=0.0, betas=config.betas, eps=config.eps, fused=True)


def layer_decay(decay: float, *, layer_of: Callable[[str], int], num_layers: int) -> Callable[[str], float]:
    """What the peak learning rate of a parameter is multiplied by: 1 behind the blocks, `decay` less each layer before.

    (Official file: optimizer.py. It is applied once, where the schedule is asked; see `set_lr`.)
    """
    return lambda name: decay ** (num_layers + 1 - layer_of(name))


def set_lr(optimizer: torch.optim.Optimizer, lr: Callable[[float], float]) -> None:
    """Give every group its learning rate: what `lr` says of the group's share of the peak."""
    for group in optimizer.param_groups:
        group["lr"] = lr(group["lr_scale"])


def clip_gradients(optimizer: torch.optim.Optimizer, limit: float | None) -> torch.Tensor:
    """Shorten the gradient to a norm, once for the whole step; returns the norm it had."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    return whole(nn.utils.clip_grad_norm_(parameters, limit if limit is not None else float("inf")))
