"""SwinV2-H and SwinV2-G: timm's SwinV2 with what the paper adds for size (arXiv 2111.09883, sections 3.4 and 4).

Importing this file makes two more models known to timm, by the names of the functions at its end. Their weights carry timm's
names; the norms that are added are called `norm3` and lie in the block whose output they normalise.

The paper says less than a network needs. Decided here, so that the counts are the published ones (658 M with
1000 classes, 3.0 B):

- a head is 32 channels wide, as in every other Swin: 11/22/44/88 and 16/32/64/128 heads;
- "every 6 layers" counts blocks through all the stages, so block 6 is stage 3's second, and block 48 of SwinV2-G lies in
  stage 4; that the last block of SwinV2-H is the 24th puts two norms behind each other, which is harmless;
- the norm stands on the main branch, behind the block's second addition, and starts as any LayerNorm does (weight 1, bias 0).
"""

from typing import Any

import timm.models
import torch
import torch.utils.checkpoint
from timm.models import register_model
from timm.models.swin_transformer_v2 import SwinTransformerV2, WindowAttention
from torch import Tensor, nn

_timm: Any = timm.models  # these two say too little of their types
_checkpointing: Any = torch.utils.checkpoint

__all__ = [
    "GIANTS",
    "SwinTransformerV2Giant",
    "attend_at_once",
    "swinv2_giant_window12_192",
    "swinv2_huge_window12_192",
]


GIANTS = ("swinv2_huge_window12_192", "swinv2_giant_window12_192")
default_cfgs: Any = _timm.generate_default_cfgs(
    {
        name: {
            "input_size": (3, 192, 192),
            "first_conv": "patch_embed.proj",
            "classifier": "head.fc",
            "pool_size": (6, 6),
        }
        for name in GIANTS
    }
)
"""What timm wants to know of a model: no weights to download."""


class SwinTransformerV2Giant(SwinTransformerV2):
    """timm's SwinV2 with further norms on the main branch, and attention that takes a few windows at a time.

    Args:
        extra_norm_every: blocks from one further norm to the next, counted through all stages; 0 for none.
        sequential_stages: how many of the first stages attend a few windows at a time, which changes no result: their
            attention maps are made anew in the backward pass, and only those of `windows_at_once` windows exist at a time.
        windows_at_once: how many windows of an image that is.
        settings: those of timm's SwinTransformerV2.
    """

    def __init__(
        self, *, extra_norm_every: int = 6, sequential_stages: int = 0, windows_at_once: int = 16, **settings: Any
    ) -> None:
        super().__init__(**settings)
        stages: Any = self.layers
        blocks = [block for stage in stages for block in stage.blocks]
        if extra_norm_every:
            for block in blocks[extra_norm_every - 1 :: extra_norm_every]:
                block.norm3 = type(block.norm2)(block.dim, device=block.norm2.weight.device)
                block.register_forward_hook(_normalise)
        for stage in stages[:sequential_stages]:
            for block in stage.blocks:
                block.attn = _few_windows_at_once(block.attn, windows_at_once)


def _normalise(block: Any, inputs: object, output: Tensor) -> Tensor:
    return block.norm3(output)


def _few_windows_at_once(attention: Any, count: int) -> nn.Module:
    """The same module, its weights where they were, with a forward of another kind."""
    attention.__class__ = SequentialAttention  # a wrapper would rename the weights
    attention.windows_at_once = count
    return attention


def attend_at_once(backbone: nn.Module) -> None:
    """Let all windows attend at a time again, in place; weights and results stay."""
    for module in backbone.modules():
        if isinstance(module, SequentialAttention):
            plain: Any = module
            plain.__class__ = WindowAttention


class SequentialAttention(WindowAttention):
    """Window attention that takes a few windows of every image at a time ("sequential self-attention")."""

    windows_at_once: int

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Attend within windows.

        Args:
            x: the windows of all images, those of an image together (batch*windows, tokens, channels).
            mask: what keeps tokens apart (windows, tokens, tokens), or None.
        """
        count = 1 if mask is None else mask.shape[0]  # windows that are told apart
        windows = x.view(-1, count, *x.shape[1:])
        along = 0 if mask is None else 1
        done: list[Tensor] = []
        for first in range(0, windows.shape[along], self.windows_at_once):
            part = windows.narrow(along, first, min(self.windows_at_once, windows.shape[along] - first))
            its = None if mask is None else mask[first : first + self.windows_at_once]
            done.append(self._attend(part.flatten(0, 1), its).view(part.shape))
        return torch.cat(done, dim=along).flatten(0, 1)

    def _attend(self, x: Tensor, mask: Tensor | None) -> Tensor:
        if not (self.training and torch.is_grad_enabled()):
            return super().forward(x, mask)
        return _checkpointing.checkpoint(super().forward, x, mask, use_reentrant=False)


def _make(name: str, pretrained: bool, **settings: Any) -> nn.Module:
    return _timm.build_model_with_cfg(
        SwinTransformerV2Giant,
        name,
        pretrained,
        feature_cfg={"out_indices": (0, 1, 2, 3), "flatten_sequential": True},
        **settings,
    )


@register_model
def swinv2_huge_window12_192(pretrained: bool = False, **settings: Any) -> nn.Module:
    """SwinV2-H: 658 million parameters with 1000 classes. No weights of it were published."""
    shape = {
        "img_size": 192,
        "window_size": 12,
        "embed_dim": 352,
        "depths": (2, 2, 18, 2),
        "num_heads": (11, 22, 44, 88),
    }
    return _make("swinv2_huge_window12_192", pretrained, **{**shape, **settings})


@register_model
def swinv2_giant_window12_192(pretrained: bool = False, **settings: Any) -> nn.Module:
    """SwinV2-G: 2998 million parameters without a classifier. No weights of it were published."""
    shape = {
        "img_size": 192,
        "window_size": 12,
        "embed_dim": 512,
        "depths": (2, 2, 42, 4),
        "num_heads": (16, 32, 64, 128),
    }
    return _make("swinv2_giant_window12_192", pretrained, **{**shape, **settings})
