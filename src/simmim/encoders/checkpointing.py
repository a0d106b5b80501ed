"""Blocks that forget what they computed and compute it again in the backward pass: slower, and with less memory."""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import torch
import torch.utils.checkpoint
from torch import Tensor, nn

from simmim.encoders.layers import blocks_of

Checkpointing = Literal["none", "selective", "blocks"]
"""What is computed again: nothing, what is cheap, or every block as a whole."""

_checkpointing: Any = torch.utils.checkpoint  # it says too little of its types
_aten: Any = torch.ops.aten
_KEPT = [  # what linear layers and fused attention give; an attention map (bmm) is large and soon made again
    getattr(_aten, name).default
    for name in (
        "mm",
        "addmm",
        "_scaled_dot_product_flash_attention",
        "_scaled_dot_product_flash_attention_for_cpu",
        "_scaled_dot_product_efficient_attention",
        "_scaled_dot_product_cudnn_attention",
    )
]


def checkpoint_blocks(backbone: nn.Module, how: Checkpointing) -> None:
    """Let the blocks of a backbone compute again in the backward pass what they do not keep. Changes no gradient.

    Args:
        backbone: a timm model.
        how: "blocks" keeps the input of a block alone; "selective" also what its linear layers and its fused attention gave.

    Raises:
        ValueError: where it is not known which its blocks are.
    """
    if how == "none":
        return
    blocks = blocks_of(backbone)
    if not blocks:
        raise ValueError(
            f"machine.checkpointing={how}: which the blocks of a {type(backbone).__name__} are is not known; "
            "take machine.checkpointing=none"
        )
    for block in blocks:
        parts: Any = block.modules()
        for part in parts:
            if getattr(part, "inplace", False):  # it would alter what is kept
                part.inplace = False
        block.forward = partial(_forgetting, block.forward, block, how)


def _forgetting(
    forward: Callable[..., Tensor], block: nn.Module, how: Checkpointing, *inputs: Any, **more: Any
) -> Tensor:
    if not (block.training and torch.is_grad_enabled()):
        return forward(*inputs, **more)
    if how == "selective":
        more["context_fn"] = partial(_checkpointing.create_selective_checkpoint_contexts, _KEPT)
    return _checkpointing.checkpoint(forward, *inputs, use_reentrant=False, **more)
