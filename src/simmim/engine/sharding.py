"""FSDP2: every process keeps a part of each weight, and the whole of a block's weights exists while the block runs.

What goes beside: the gradient of a block is summed over the processes as soon as it is known, each keeps its part of it, and
the optimizer moves that part. A module says by `shards()` what is gathered together; all else is gathered for the whole step.
"""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, cast, runtime_checkable

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from simmim.engine.precision import PrecisionName


@runtime_checkable
class Shards(Protocol):
    """A module that knows which of its parts run one after the other."""

    def shards(self) -> Sequence[nn.Module]:
        """The parts, inner ones before those that hold them."""
        ...


def shard(module: nn.Module, *, device: torch.device, precision: PrecisionName) -> None:
    """Spread the weights of a module over all processes, in place; every process must hold the same ones before.

    In bf16 the parts are gathered in that format, which halves what is sent, and gradients are summed in float32; each process
    keeps its share of the weights in float32, and autocast decides on the format of every operation, as without sharding.
    What lies outside the parts (embeddings, norms, the mask token) is gathered in float32.
    """
    # timm's Swin blocks and the model itself return views, and nothing alters them in place, which is what torch warns of
    warnings.filterwarnings("ignore", message=r"FSDP2-wrapped module \(FSDP\w+\) returned a view tensor")
    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    formats = MixedPrecisionPolicy(
        param_dtype=torch.bfloat16 if precision == "bf16" else None,
        reduce_dtype=torch.float32 if precision == "bf16" else None,
        cast_forward_inputs=False,
    )
    for part in module.shards() if isinstance(module, Shards) else ():
        fully_shard(part, mesh=mesh, mp_policy=formats, reshard_after_forward=True)
    fully_shard(module, mesh=mesh, mp_policy=MixedPrecisionPolicy(cast_forward_inputs=False))


def sync_with(module: FSDPModule, *, last: bool) -> None:
    """Send gradients behind the last micro batch alone; until then they add up, and weights stay gathered."""
    module.set_requires_gradient_sync(last)
    module.set_reshard_after_backward(last)


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor that may be spread; every process must ask."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def gather(tensors: Mapping[str, Tensor], *, keep: bool) -> dict[str, Tensor]:
    """All of tensors that are spread, on the CPU; every process must ask, one after the other is sent.

    Args:
        tensors: by name, in the same order in every process.
        keep: whether this process wants them; without, the answer is empty.
    """
    found: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        everything = whole(tensor.detach())
        if keep:
            found[name] = everything.cpu()
    return found


def own_part(tensor: Tensor) -> Tensor:
    """What this process holds of a tensor."""
    return cast(Tensor, cast(Any, tensor).to_local()) if isinstance(tensor, DTensor) else tensor


def spread_like(tensor: Tensor, pattern: Tensor) -> Tensor:
    """A tensor that every process holds whole, spread like another one of its shape."""
    if not isinstance(pattern, DTensor) or tensor.shape != pattern.shape:
        return tensor
    there = tensor.to(pattern.device)
    return distribute_tensor(there, pattern.device_mesh, pattern.placements, src_data_rank=None)
