"""One training step of a network on shapes alone: what it multiplies, and what memory it holds at every moment."""

import re
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, NamedTuple, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from simmim.data import Statistics
from simmim.engine.distributed import MachineConfig
from simmim.model import SimMIM
from simmim.tasks.plan.formats import LikeAGpu, NumbersStayReal
from simmim.tasks.plan.pretend import KINDS, MANY, Ledger
from simmim.tasks.pretrain import PretrainConfig, build_model, draw_masks

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


@dataclass(frozen=True)
class Network:
    """The network of a recipe, on the meta device."""

    config: PretrainConfig
    model: SimMIM

    def parameters_by_part(self) -> dict[str, int]:
        """How many parameters each part has."""
        found: dict[str, int] = {}
        for name, parameter in self.model.named_parameters():
            part = part_of(name)
            found[part] = found.get(part, 0) + parameter.numel()
        return found


def build_network(config: PretrainConfig, *, channels: int) -> Network:
    """Make the network of a recipe without values, for images of so many channels.

    Raises:
        ValueError: where its sizes do not fit, as when it is trained.
    """
    made_up = Statistics(channels, (0.5,) * channels, (0.25,) * channels)
    with Ledger(), torch.device("meta"), NumbersStayReal():
        return Network(config, build_model(config, made_up).train())


def take_step(network: Network, *, checkpointing: str, precision: str, fused: bool = True) -> Step:
    """Run one micro batch of a network forward and backward.

    Every image has the same mask, the first of the recipe.

    Args:
        network: whose.
        checkpointing: a word of machine.checkpointing.
        precision: a word of machine.precision.
        fused: whether attention is a fused kernel, as on a GPU.
    """
    model, config = deepcopy(network.model, {id(buffer): buffer for buffer in network.model.buffers()}), network.config
    checkpoint: Any = model.encoder.checkpoint_blocks  # the words are those of the settings
    checkpoint(checkpointing)
    parts = {parameter: part_of(name) for name, parameter in model.named_parameters()}
    ledger = Ledger(parts)
    ledger.leave_out(*model.buffers())
    like_a_gpu = LikeAGpu(FORMATS[precision], lambda copy: ledger.file(copy, "copies"), fused=fused)
    for parameter in parts:
        if parameter.requires_grad:
            parameter.register_post_accumulate_grad_hook(_filer(ledger))
    mask = draw_masks(config, model, batch=1, step=0).expand(MANY, -1, -1)
    arranged = model.arrange(mask)
    images = torch.empty(MANY, model.encoder.in_channels, *model.encoder.image_size, device="meta")
    with ledger, like_a_gpu:
        loss = model(images, mask, None, arranged).loss
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


def part_of(name: str) -> str:
    """The part of a network that a parameter belongs to, as a person names it."""
    if name.startswith("head."):
        return "head"
    if name == "mask_token" or ".patch_embed." in name or re.search(r"\.(cls_token|pos_embed|reg_token)$", name):
        return "embedding"
    if found := re.search(r"\.(?:layers|stages)[._](\d+)\.", name):
        return f"stage {int(found[1]) + 1}"
    return "blocks" if re.search(r"\.(blocks\.\d+|rel_pos_bias)\.", name) else "rest of the encoder"
