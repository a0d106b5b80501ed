"""Attention with a bias that learns, on a CPU, without keeping its scores.

PyTorch's kernel that keeps no scores takes no bias with a gradient, and what it does instead keeps several copies of them for
the backward pass: 150 MB a block of ViT-B with 32 images. Here scores of a few images at a time are made, used and made again
on the way back, which costs one product more and less traffic to memory.
"""

from typing import Any

import torch
from timm.models.beit import Attention
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

_SCORES_AT_A_TIME = 2**20
"""Numbers, 4 MiB of them: what stays in a processor's cache."""


def keep_no_scores(attention: Any) -> None:
    """Let timm's BEiT attention compute so where it trains in float32 on a CPU. Its weights keep their names."""
    if type(attention) is Attention:
        attention.__class__ = _LeanAttention


class _LeanAttention(Attention):
    def forward(self, x: Tensor, shared_rel_pos_bias: Tensor | None = None) -> Tensor:
        own: Any = self
        if own.q_bias is None or not _pays(x) or (own.training and own.attn_drop.p > 0):
            return super().forward(x, shared_rel_pos_bias)
        bias = None if own.relative_position_bias_table is None else own._get_rel_pos_bias()
        if shared_rel_pos_bias is not None:
            bias = shared_rel_pos_bias if bias is None else bias + shared_rel_pos_bias
        if bias is None or not bias.requires_grad:
            return super().forward(x, shared_rel_pos_bias)
        qkv = F.linear(x, own.qkv.weight, torch.cat((own.q_bias, own.k_bias, own.v_bias)))
        bias = bias if bias.dim() == 4 else bias[None]
        attended = biased_attention(qkv.view(*x.shape[:2], 3, own.num_heads, -1), bias, scale=own.scale)
        return own.proj_drop(own.proj(attended))


def _pays(x: Tensor) -> bool:
    short = torch.is_autocast_enabled("cpu") or x.dtype != torch.float32
    return x.device.type == "cpu" and torch.is_grad_enabled() and not short


def biased_attention(qkv: Tensor, bias: Tensor, *, scale: float) -> Tensor:
    """softmax(scale * q k^T + bias) v.

    Args:
        qkv: queries, keys and values (images, tokens, 3, heads, channels of a head).
        bias: of each pair (images or 1, heads, tokens, tokens).
        scale: of the products of queries and keys.

    Returns:
        What the tokens take from each other, heads side by side (images, tokens, channels).
    """
    return _Attention.apply(qkv, bias, scale)  # pyright: ignore[reportReturnType]


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, qkv: Tensor, bias: Tensor, scale: float) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        images, tokens, _, heads, channels = qkv.shape
        attended = qkv.new_empty(images, tokens, heads, channels)
        for part in _parts(images, heads * tokens * tokens):
            q, k, v = _heads_first(qkv[part])
            attended[part] = (_weights(q, k, bias, part, scale) @ v).transpose(1, 2)
        ctx.save_for_backward(qkv, bias, attended)
        ctx.scale = scale
        return attended.flatten(2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor | None, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        qkv, bias, attended = ctx.saved_tensors
        images, tokens, _, heads, _ = qkv.shape
        gradient = gradient.reshape(attended.shape)
        of_qkv, of_bias = torch.empty_like(qkv), torch.zeros_like(bias) if ctx.needs_input_grad[1] else None
        for part in _parts(images, heads * tokens * tokens):
            q, k, v = _heads_first(qkv[part])
            out = gradient[part].transpose(1, 2)
            weights = _weights(q, k, bias, part, ctx.scale)
            of_v = weights.transpose(2, 3) @ out
            along = (gradient[part] * attended[part]).sum(dim=3).transpose(1, 2)[..., None]
            of_scores = (out @ v.transpose(2, 3)).sub_(along).mul_(weights)
            if of_bias is not None:
                _add(of_bias, of_scores, part)
            of_k = of_scores.transpose(2, 3) @ q.mul_(ctx.scale)
            of_q = (of_scores @ k).mul_(ctx.scale)
            for number, one in enumerate((of_q, of_k, of_v)):
                of_qkv[part, :, number] = one.transpose(1, 2)
        return of_qkv, of_bias, None


def _parts(images: int, scores: int) -> list[slice]:
    size = max(_SCORES_AT_A_TIME // scores, 1)
    return [slice(start, min(start + size, images)) for start in range(0, images, size)]


def _heads_first(qkv: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    q, k, v = qkv.permute(2, 0, 3, 1, 4).contiguous().unbind(0)
    return q, k, v


def _weights(q: Tensor, k: Tensor, bias: Tensor, part: slice, scale: float) -> Tensor:
    scores = (q * scale) @ k.transpose(2, 3)
    return scores.add_(bias[part] if len(bias) > 1 else bias).softmax(dim=3)


def _add(of_bias: Tensor, of_scores: Tensor, part: slice) -> None:
    if len(of_bias) > 1:
        of_bias[part] = of_scores
    else:
        of_bias += of_scores.sum(dim=0, keepdim=True)
