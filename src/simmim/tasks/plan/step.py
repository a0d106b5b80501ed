"""One training step of a network on shapes alone: what it multiplies, and what memory it holds at every moment."""

from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, NamedTuple, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from simmim.encoders import checkpoint_blocks
from simmim.engine.distributed import MachineConfig
from simmim.tasks.plan.formats import LikeAGpu
from simmim.tasks.plan.network import Network, part_of
from simmim.tasks.plan.pretend import KINDS, MANY, Ledger

CHECKPOINTINGS: tuple[str, ...] = get_args(MachineConfig.model_fields["checkpointing"].annotation)
"""The words of machine.checkpointing."""
FORMATS: Mapping[str, torch.dtype | None] = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


class Flops(NamedTuple):
    """Multiplications and additions of one image, two for each product, as PyTorch counts them."""

    forward: float
    backward: float

    @property
    def both(self) -> float:
        """Of a whole step."""
        return self.forward + self.backward


@dataclass(frozen=True)
class Step:
    """What one micro batch does."""

    flops: Mapping[str, Flops]
    """Of one image, by part; with checkpointing, what is computed again counts as backward."""
    fixed: NDArray[np.float64]
    """Bytes alive behind every operation, by `KINDS`, whatever the number of images (operations, kinds)."""
    per_image: NDArray[np.float64]
    """Bytes for every image (operations, kinds)."""

    @property
    def total(self) -> Flops:
        """Of all parts."""
        return Flops(*(sum(each) for each in zip(*self.flops.values(), strict=True)))

    def alive(self, images: int) -> NDArray[np.float64]:
        """Bytes alive behind every operation, by `KINDS` (operations, kinds)."""
        return self.fixed + images * self.per_image


def take_step(network: Network, *, checkpointing: str, precision: str, fused: bool = True) -> Step:
    """Run one micro batch of a network forward and backward.

    Args:
        network: whose.
        checkpointing: a word of machine.checkpointing.
        precision: a word of machine.precision.
        fused: whether attention is a fused kernel, as on a GPU.
    """
    network = deepcopy(network, {id(buffer): buffer for buffer in network.trained.buffers()})
    model = network.trained
    how: Any = checkpointing  # the words are those of the settings
    checkpoint_blocks(network.backbone, how)
    parts = {parameter: part_of(name) for name, parameter in model.named_parameters()}
    ledger = Ledger(parts)
    ledger.leave_out(*model.buffers())
    like_a_gpu = LikeAGpu(FORMATS[precision], lambda copy: ledger.file(copy, "copies"), fused=fused)
    for parameter in parts:
        if parameter.requires_grad:
            parameter.register_post_accumulate_grad_hook(_filer(ledger))
    inputs = network.inputs(MANY)
    images = torch.empty(MANY, network.channels, *network.image_size, device="meta")
    with ledger, like_a_gpu:
        loss = model(images, *inputs).loss
        like_a_gpu.drop_copies()
        ledger.passing = "backward"
        _backward(loss)
    return _summary(ledger)


def _backward(loss: Tensor) -> None:
    """loss.backward(), which PyTorch would run outside the mode that is on, and what is computed again with it."""
    engine: Any = torch.autograd.Variable._execution_engine  # pyright: ignore[reportPrivateUsage, reportUnknownVariableType]
    engine.run_backward(
        (loss,), (torch.ones_like(loss),), False, False, (), allow_unreachable=True, accumulate_grad=True
    )


def _filer(ledger: Ledger) -> Callable[[Tensor], None]:
    def file(parameter: Tensor) -> None:
        assert parameter.grad is not None, "called behind its accumulation"
        ledger.file(parameter.grad, "gradients")

    return file


def _summary(ledger: Ledger) -> Step:
    table = np.array(ledger.moments, dtype=np.float64)
    flops = {
        part: Flops(*(ledger.flops.get((part, way), 0) / MANY for way in ("forward", "backward")))
        for part in dict.fromkeys(part for part, _ in ledger.flops)
    }
    return Step(flops, table[:, : len(KINDS)], table[:, len(KINDS) :] / MANY)
