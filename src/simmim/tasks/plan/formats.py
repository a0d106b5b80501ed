"""What a GPU would do that the meta device does not: mixed precision, and attention in one fused kernel."""

from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map_only

_PRODUCTS = {"linear", "matmul", "__matmul__", "bmm", "mm", "addmm", "baddbmm", "scaled_dot_product_attention"}
_SHORT = _PRODUCTS | {"conv1d", "conv2d", "conv3d", "conv_transpose2d"}
"""What torch.autocast runs in the short format on a GPU (PyTorch's documentation, "CUDA Ops that can autocast to float16")."""
_NORMS = {"layer_norm", "group_norm", "norm", "normalize", "softmax", "log_softmax"}
_LOSSES = {"l1_loss", "mse_loss", "smooth_l1_loss", "cross_entropy", "nll_loss", "cdist"}
_LONG = _NORMS | _LOSSES | {"exp", "log", "log2", "pow", "__pow__", "sum", "prod", "cumsum"}
"""What it runs in float32 (same place, "CUDA Ops that can autocast to float32")."""
_OF_A_BLOCK = 16  # weights and biases of a block, rounded up
_ALIGNED = 16  # elements; a bias of another width is filled up by the fused kernel


class LikeAGpu(TorchFunctionMode):
    """Calls of PyTorch as they would run on a GPU, on tensors without values.

    Args:
        short: the network's number format; None for float32 throughout.
        copied: told of every copy of a weight in the short format.
        fused: whether attention is one kernel that keeps no map of all pairs; what a CPU does otherwise.
    """

    def __init__(self, short: torch.dtype | None, copied: Callable[[Tensor], None], *, fused: bool = True) -> None:
        super().__init__()
        self.short = short
        self._fused = fused
        self._copied = copied
        self._limit: int | None = None
        self._copies: dict[int, Tensor] = {}

    def drop_copies(self) -> None:
        """End the forward pass, in which a weight is copied once; what is computed again then copies a block's weights once."""
        self._copies.clear()
        self._limit = _OF_A_BLOCK

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Cast the inputs as autocast would, and run attention as a fused kernel."""
        name, given = str(getattr(func, "__name__", "")), (tuple(args), kwargs or {})
        if self.short is not None and torch.is_grad_enabled():
            if name in _SHORT:
                given = tree_map_only(Tensor, self._shorten, given)
            elif name in _LONG:
                given = tree_map_only(Tensor, _lengthen, given)
        if name == "scaled_dot_product_attention":
            return (_fused_attention if self._fused else _attention_of_a_cpu)(*given[0], **given[1])
        return func(*given[0], **given[1])

    def _shorten(self, tensor: Tensor) -> Tensor:
        assert self.short is not None, "asked in mixed precision only"
        if not tensor.is_floating_point() or tensor.dtype in (self.short, torch.float64):
            return tensor
        if not (tensor.is_leaf and tensor.requires_grad):
            return tensor.to(self.short)
        if id(tensor) in self._copies:
            return self._copies[id(tensor)]
        copy = tensor.to(self.short)
        self._copied(copy)
        self._copies[id(tensor)] = copy
        if self._limit is not None and len(self._copies) > self._limit:
            del self._copies[next(iter(self._copies))]
        return copy


def _lengthen(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.dtype in (torch.bfloat16, torch.float16) else tensor


def _fused_attention(
    q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor | None = None, *, scale: float | None = None, **more: Any
) -> Tensor:
    """Attention by PyTorch's memory-efficient kernel: of the map of all pairs only a sum for each query is kept."""
    bias = attn_mask
    if bias is not None:
        width = bias.shape[-1]
        if width % _ALIGNED:
            bias = F.pad(bias, (0, -width % _ALIGNED))[..., :width]
        bias = bias.expand(*q.shape[:-1], k.shape[-2])
    kernel = torch.ops.aten._scaled_dot_product_efficient_attention
    return cast(Tensor, kernel(q, k, v, bias, q.requires_grad, scale=scale)[0])


def _attention_of_a_cpu(
    q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor | None = None, *, scale: float | None = None, **more: Any
) -> Tensor:
    """Attention as a CPU has it: fused where there is no bias to learn, else written out."""
    if attn_mask is None or not attn_mask.requires_grad:
        return _fused_attention(q, k, v, attn_mask, scale=scale)
    factor = q.shape[-1] ** -0.5 if scale is None else scale
    weights = ((q * factor if factor != 1 else q) @ k.transpose(-2, -1)).add_(attn_mask)
    return weights.softmax(dim=-1) @ v


class NumbersStayReal(TorchFunctionMode):
    """Within `torch.device("meta")`: numbers that are written out in the code keep their values."""

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Make `torch.tensor([...])` on the CPU."""
        written = getattr(func, "__name__", "") in ("tensor", "as_tensor")
        return func(*args, **({"device": "cpu"} if written else {}) | (kwargs or {}))
