"""Swin's blocks on tokens that stay where attention wants them, all tokens or only those that are seen.

timm rolls, cuts and puts back the map in every block. Here tokens lie in groups that attend among themselves, and one gather
leads from the groups of a block to those of the next; its backward pass is a gather too. Between stages they lie in an order
in which four neighbours follow each other, so that patch merging is a change of shape.

    all tokens:    a group is a window
    seen tokens:   windows have lost some of theirs, and are packed together until a group is full (the idea of GreenMIM,
                   arXiv 2205.13515); tokens of different windows do not see each other
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
import torch.utils.checkpoint
from timm.models.swin_transformer import SwinTransformerBlock
from timm.models.swin_transformer_v2 import SwinTransformerV2Block
from torch import Tensor, nn

from simmim.encoders.wanted import only_at
from simmim.units import Size

_checkpointing: Any = torch.utils.checkpoint  # it says too little of its types
_CORNERS = ((0, 0), (1, 0), (0, 1), (1, 1))  # (row, column), in the order in which Swin merges them


class Groups(NamedTuple):
    """Which token lies where; images are counted through, or one stands for all."""

    order: Tensor
    """Token in each slot (images, groups * slots)."""
    place: Tensor
    """Slot of each token (images, tokens)."""
    pairs: Tensor
    """Row of the table of position biases for each pair of a group (images * groups or 1, slots, slots)."""
    apart: Tensor | None
    """True for pairs that do not see each other (images * groups or groups, slots, slots); None where all do."""
    filled: Tensor | None
    """False for slots that hold nothing (images, groups * slots); None where all hold a token."""

    @property
    def slots(self) -> int:
        """Tokens a group."""
        return self.pairs.shape[-1]

    def some(self, first: int, count: int, *, of: int) -> "Groups":
        """What attention asks of `count` groups of every image, of the `of` that an image has, from the `first` on."""
        pairs, apart = (
            each if each is None or len(each) == 1 else _of_every_image(each, first, count, of)
            for each in (self.pairs, self.apart)
        )
        assert pairs is not None, "only `apart` may be missing"
        return self._replace(pairs=pairs, apart=apart)


def _of_every_image(x: Tensor, first: int, count: int, of: int) -> Tensor:
    return x.view(-1, of, *x.shape[1:])[:, first : first + count].flatten(0, 1)


def nested_coordinates(map_size: Size, *, doublings: int) -> Tensor:
    """Rows and columns of a map's tokens, cell by cell, four neighbours together at every level (tokens, 2).

    Args:
        map_size: rows and columns of the coarsest map.
        doublings: how many times as fine, in powers of two, this map is.
    """
    rows, columns = (torch.arange(side) for side in map_size)
    found = torch.cartesian_prod(rows, columns)
    for _ in range(doublings):
        found = (found[:, None] * 2 + torch.tensor(_CORNERS)).flatten(0, 1)
    return found


class WindowPlace(NamedTuple):
    """Where the tokens of a map lie for a block."""

    window: Tensor
    """Number of the window (tokens)."""
    part: Tensor
    """Number of the part of the map within a shifted window; tokens of different parts do not see each other (tokens)."""
    row: Tensor
    column: Tensor
    """Within the window (tokens)."""


def window_places(coordinates: Tensor, map_size: Size, *, window: Size, shift: Size) -> WindowPlace:
    """The windows of a block, shifted as Swin does it."""
    (height, width), (rows, columns) = map_size, coordinates.unbind(1)
    row, column = (rows - shift[0]) % height, (columns - shift[1]) % width
    across = -(-width // window[1])
    part = (row >= height - shift[0]).long() * 2 * (shift[0] > 0) + (column >= width - shift[1]).long() * (shift[1] > 0)
    return WindowPlace(row // window[0] * across + column // window[1], part, row % window[0], column % window[1])


def _pairs(row: Tensor, column: Tensor, window: Size) -> Tensor:
    """Row of the bias table for each pair along the last axis."""
    down = row[..., :, None] - row[..., None, :] + window[0] - 1
    right = column[..., :, None] - column[..., None, :] + window[1] - 1
    return down * (2 * window[1] - 1) + right


class Windows(nn.Module):
    """The windows of the blocks of a stage that cut the map in the same way. Its buffers are saved nowhere."""

    def __init__(self, map_size: Size, *, cells: Size, window: Size, shift: Size) -> None:
        super().__init__()
        self.map_size, self.window = map_size, window
        doublings = (map_size[0] // cells[0]).bit_length() - 1
        place = window_places(nested_coordinates(cells, doublings=doublings), map_size, window=window, shift=shift)
        self.place = place
        """Where the tokens of the map lie; no buffer, for what is seen is arranged on the CPU."""
        self.fits = not (map_size[0] % window[0] or map_size[1] % window[1])
        """Whether every window is whole; timm fills up those that are not."""
        if self.fits:
            groups = _group_all(place, window, parted=any(shift))
            for name, numbers in groups._asdict().items():
                self.register_buffer(f"all_{name}", numbers, persistent=False)

    def of_all(self) -> Groups:
        """Every window is a group."""
        return Groups(*(getattr(self, f"all_{name}") for name in Groups._fields))

    def of_seen(self, tokens: Tensor, real: Tensor) -> Groups:
        """What is left of the windows, packed together; see `group_seen`."""
        return group_seen(self.place, self.window, tokens=tokens, real=real)


def _group_all(place: WindowPlace, window: Size, *, parted: bool) -> Groups:
    area = window[0] * window[1]
    order = (place.window * area + place.row * window[1] + place.column).argsort()
    parts = place.part[order].view(-1, area)
    return Groups(
        order=order[None],
        place=order.argsort()[None],
        pairs=_pairs(place.row[order[:area]], place.column[order[:area]], window)[None],
        apart=parts[:, :, None] != parts[:, None, :] if parted else None,
        filled=None,
    )


def group_seen(place: WindowPlace, window: Size, *, tokens: Tensor, real: Tensor) -> Groups:
    """Pack what is left of the windows into groups of at most a window's size; all of it on the CPU.

    Args:
        place: where all tokens of the map lie.
        window: rows and columns of a window.
        tokens: numbers of the tokens that are there (images, tokens).
        real: false where a token only fills up an image that has fewer than another (images, tokens).
    """
    images, area = len(tokens), window[0] * window[1]
    key = (place.window * 4 + place.part)[tokens]
    key = torch.where(real, key, key.max() + 1)
    by_window = key.argsort(dim=1, stable=True)
    slot = torch.as_tensor(_pack(key.gather(1, by_window).numpy(), area))
    groups = int(slot.max()) // area + 1
    order = tokens.new_zeros(images, groups * area).scatter_(1, slot, by_window)
    filled = torch.zeros_like(order, dtype=torch.bool).scatter_(1, slot, torch.ones_like(by_window, dtype=torch.bool))
    there = torch.where(filled, key.gather(1, order), -1).view(-1, area)
    which = tokens.gather(1, order)
    row, column = (each[which].view(-1, area) for each in (place.row, place.column))
    return Groups(
        order=order,
        place=torch.empty_like(by_window).scatter_(1, by_window, slot),
        pairs=_pairs(row, column, window),
        apart=there[:, :, None] != there[:, None, :],
        filled=None if bool(filled.all()) else filled,
    )


def _pack(keys: Any, area: int) -> Any:
    """A slot for each token, of tokens sorted by window (images, tokens): the largest windows first, where there is room."""
    images, count = keys.shape
    slot = np.empty((images, count), np.int64)
    for image in range(images):
        starts = np.flatnonzero(np.r_[True, keys[image, 1:] != keys[image, :-1]])
        sizes = np.diff(np.r_[starts, count])
        used: list[int] = []
        for number in np.argsort(-sizes, kind="stable"):
            start, left = int(starts[number]), int(sizes[number])
            while left:  # only what fills up an image can be larger than a group
                size = min(left, area)
                group = next((g for g, taken in enumerate(used) if taken + size <= area), len(used))
                if group == len(used):
                    used.append(0)
                slot[image, start : start + size] = np.arange(size) + group * area + used[group]
                used[group] += size
                start, left = start + size, left - size
    return slot


# ------------------------------------------------------------------------------------------------------------- moving tokens


class _Move(torch.autograd.Function):
    """Rows in another order; the way back is a gather as well."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, to: Tensor, back: Tensor, empty: Tensor | None) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx.save_for_backward(back, empty)
        return _take(x, to)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        back, empty = ctx.saved_tensors
        moved = _take(gradient, back)
        return (moved if empty is None else moved.masked_fill_(empty[..., None], 0)), None, None, None


def _take(x: Tensor, index: Tensor) -> Tensor:
    """x[image, index[image]] (images, places, channels)."""
    images, count, channels = x.shape
    if images > 1:
        index = index + torch.arange(0, images * count, count, device=x.device)[:, None]
    return x.reshape(-1, channels).index_select(0, index.flatten()).view(images, -1, channels)


def reorder(x: Tensor, order: Tensor, place: Tensor) -> Tensor:
    """Tokens (images, tokens, channels) in the order of their numbers; `place` is its inverse (both 1 or images, tokens)."""
    return _Move.apply(x, order, place, None)  # pyright: ignore[reportReturnType]


def pick(x: Tensor, numbers: Tensor) -> Tensor:
    """Some tokens of each image (images, picked, channels), by their numbers (images, picked)."""
    return _take(x, numbers)


def move(x: Tensor, *, of: Groups | None, to: Groups | None) -> Tensor:
    """Tokens from the groups of one block to those of another; None stands for the order of the stage."""
    if of is to:
        return x
    if of is None:
        assert to is not None, "one of the two is a block's"
        return _Move.apply(x, to.order, to.place, None)  # pyright: ignore[reportReturnType]
    empty = None if of.filled is None else ~of.filled
    if to is None:
        return _Move.apply(x, of.place, of.order, empty)  # pyright: ignore[reportReturnType]
    there, back = of.place.expand(len(to.order), -1).gather(1, to.order), to.place.gather(1, of.order)
    return _Move.apply(x, there, back, empty)  # pyright: ignore[reportReturnType]


# ------------------------------------------------------------------------------------------------------------------ a block


def take_groups(block: Any) -> None:
    """Let timm's Swin or SwinV2 block also take tokens that lie in groups: `block(x, groups)`; `wanted.py` says what else.

    As a call of the block itself, so that whatever hooks to it (further norms, sharded weights) sees it as well.
    """
    if not isinstance(block, GroupedBlock):
        known: Any = _GroupedV2 if hasattr(block.attn, "cpb_mlp") else _GroupedV1
        block.__class__ = known  # a wrapper would rename the weights


class GroupedBlock:
    """timm's block, and the same on tokens that lie in its groups."""


class _GroupedV1(GroupedBlock, SwinTransformerBlock):
    def forward(self, x: Tensor, groups: Groups | None = None, wanted: Tensor | None = None) -> Tensor:
        if groups is None:
            return super().forward(x)
        block: Any = self
        x = x + block.drop_path1(_attend_v1(block.attn, block.norm1(x), groups))
        return x + block.drop_path2(only_at(wanted, x, lambda some: block.mlp(block.norm2(some))))


class _GroupedV2(GroupedBlock, SwinTransformerV2Block):
    def forward(self, x: Tensor, groups: Groups | None = None, wanted: Tensor | None = None) -> Tensor:
        if groups is None:
            return super().forward(x)
        block: Any = self
        x = x + block.drop_path1(block.norm1(_attend_few(block.attn, x, groups)))
        return x + block.drop_path2(only_at(wanted, x, lambda some: block.norm2(block.mlp(some))))


def merge(downsample: Any, x: Tensor, *, norm_first: bool) -> Tensor:
    """timm's patch merging on tokens of which four neighbours follow each other."""
    x = x.reshape(x.shape[0], x.shape[1] // 4, -1)
    return downsample.reduction(downsample.norm(x)) if norm_first else downsample.norm(downsample.reduction(x))


def _attend_v1(attention: Any, x: Tensor, groups: Groups) -> Tensor:
    q, k, v = _heads(F.linear(x, attention.qkv.weight, attention.qkv.bias), attention.num_heads, groups.slots)
    table = attention.relative_position_bias_table
    return _finish(attention, x, _attention(q, k, v, _bias(table, groups), scale=attention.scale, groups=groups))


def _attend_v2(attention: Any, x: Tensor, groups: Groups) -> Tensor:
    qkv_bias = None
    if attention.q_bias is not None:
        qkv_bias = torch.cat((attention.q_bias, torch.zeros_like(attention.v_bias), attention.v_bias))
    q, k, v = _heads(F.linear(x, attention.qkv.weight, qkv_bias), attention.num_heads, groups.slots)
    scale = attention.logit_scale.clamp(max=float(np.log(100.0))).exp()
    q, k = F.normalize(q, dim=-1) * scale, F.normalize(k, dim=-1)
    table = 16 * torch.sigmoid(attention.cpb_mlp(attention.relative_coords_table).view(-1, attention.num_heads))
    bias = _bias(table, groups)
    return _finish(attention, x, _attention(q.to(v.dtype), k.to(v.dtype), v, bias, scale=1.0, groups=groups))


def _attend_few(attention: Any, x: Tensor, groups: Groups) -> Tensor:
    """SwinV2's attention; in a block that takes a few windows at a time (`giants.py`), so many groups, computed again later."""
    at_once: int | None = getattr(attention, "windows_at_once", None)
    if at_once is None:
        return _attend_v2(attention, x, groups)
    windows = x.reshape(len(x), -1, groups.slots, x.shape[2])
    done: list[Tensor] = []
    for first in range(0, windows.shape[1], at_once):
        part = windows[:, first : first + at_once].flatten(1, 2)
        its = groups.some(first, at_once, of=windows.shape[1])
        if attention.training and torch.is_grad_enabled():
            done.append(_checkpointing.checkpoint(_attend_v2, attention, part, its, use_reentrant=False))
        else:
            done.append(_attend_v2(attention, part, its))
    return torch.cat(done, dim=1)


def _heads(qkv: Tensor, heads: int, slots: int) -> Sequence[Tensor]:
    """(images, groups * slots, 3 * channels) as three of (images * groups, heads, slots, channels of a head)."""
    return qkv.view(-1, slots, 3, heads, qkv.shape[-1] // (3 * heads)).permute(2, 0, 3, 1, 4).contiguous().unbind(0)


def _bias(table: Tensor, groups: Groups) -> Tensor:
    """What is added to the attention of each pair, -inf where a pair is apart (windows, heads, slots, slots)."""
    bias = F.embedding(groups.pairs, table).permute(0, 3, 1, 2)
    if groups.apart is None:
        return bias.contiguous()
    return bias.masked_fill(groups.apart[:, None], float("-inf"))


def _attention(q: Tensor, k: Tensor, v: Tensor, bias: Tensor, *, scale: float, groups: Groups) -> Tensor:
    if q.device.type != "cpu":
        mask = (
            bias.to(q.dtype).expand(len(q) // len(bias), *bias.shape).flatten(0, 1)
            if len(bias) > 1
            else bias.to(q.dtype)
        )
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale)
    weights = ((q * scale if scale != 1 else q) @ k.transpose(-2, -1)).view(-1, *bias.shape)
    weights = weights.add_(bias).view(-1, *bias.shape[1:]).softmax(dim=-1)
    return weights.to(v.dtype) @ v


def _finish(attention: Any, x: Tensor, attended: Tensor) -> Tensor:
    return attention.proj(attended.transpose(1, 2).reshape(x.shape))
