"""A backbone's weights brought to another image size, window, aspect or number of channels; what changed is said."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, cast

import timm
import torch
from torch import Tensor, nn

from simmim.units import Size
from simmim.weights.blueprint import Blueprint
from simmim.weights.resize import Rule, fit_input_channels, resize_positions, resize_table

_NAMES = {
    "swin": "swin_base_patch4_window7_224",
    "swinv2": "swinv2_base_window8_256",
    "beit": "beit_base_patch16_224",
    "vit": "vit_base_patch16_224",
}
_TABLE = "relative_position_bias_table"
_SHARED = f"rel_pos_bias.{_TABLE}"


@dataclass(frozen=True)
class Wanted:
    """What a person wants otherwise than it is in the file; what is left out stays."""

    image_size: Size | None = None
    """Height and width in pixels."""
    window: int | None = None
    """Tokens a side of a window; else it grows with the image."""
    channels: int | None = None
    """Of the images."""
    per_block: bool = False
    """The paper's ViT: a position bias for every block, started from the shared one."""
    rule: Rule = "cubic"
    """How bias tables are resampled: "cubic" as the official code, "linear" as timm."""
    heads: int | None = None
    """Attention heads of a plain ViT, which its tensors do not tell."""


@dataclass(frozen=True)
class Adapted:
    """Weights for a blueprint."""

    backbone: dict[str, Tensor]
    blueprint: Blueprint
    changes: dict[str, str]
    """What was done, by the name of the tensor."""


def timm_name(blueprint: Blueprint) -> str:
    """The timm model whose arguments make it."""
    return _NAMES[blueprint.family]


def outline(blueprint: Blueprint) -> nn.Module:
    """The backbone without memory behind its weights: names, shapes and windows."""
    with torch.device("meta"):
        return timm.create_model(timm_name(blueprint), pretrained=False, **blueprint.arguments())


def adapt(backbone: Mapping[str, Tensor], blueprint: Blueprint, wanted: Wanted) -> Adapted:
    """Bring weights to what is wanted; a tensor that fits already is not touched.

    Raises:
        ValueError: where the family has no such thing to change.
    """
    target = _target(blueprint, wanted)
    weights = dict(backbone)
    changes: dict[str, str] = {}
    if target.per_block and not blueprint.per_block:
        changes |= _spread(weights, blueprint)
    if target == replace(blueprint, per_block=target.per_block):
        return Adapted(weights, target, changes)
    before, after = _modules(replace(blueprint, per_block=target.per_block)), _modules(target)
    if target.window != blueprint.window:
        changes["window"] = f"{blueprint.window} to {target.window} tokens a side"
    for name, tensor in weights.items():
        module, _, word = name.rpartition(".")
        changed = _fitted(word, tensor, before.get(module), after.get(module), target, wanted)
        if changed is not None and changed.shape != tensor.shape:
            weights[name] = changed
            changes[name] = f"{tuple(tensor.shape)} to {tuple(changed.shape)}"
    return Adapted(weights, target, changes)


def _modules(blueprint: Blueprint) -> dict[str, Any]:
    return cast("dict[str, nn.Module]", dict(cast(Any, outline(blueprint)).named_modules()))


def _fitted(word: str, tensor: Tensor, before: Any, after: Any, target: Blueprint, wanted: Wanted) -> Tensor | None:
    if word == _TABLE:
        source, goal = (_sides(each.window_size) for each in (before, after))
        return resize_table(tensor, source, goal, rule=wanted.rule, extra=len(tensor) - source[0] * source[1])
    if word == "pos_embed":
        return resize_positions(tensor, before.patch_embed.grid_size, after.patch_embed.grid_size)
    if word == "weight" and tensor.ndim == 4 and tensor.shape[1] != target.channels:
        return fit_input_channels(tensor, target.channels)
    return None


def _sides(window: Size) -> Size:
    return 2 * window[0] - 1, 2 * window[1] - 1


def _spread(weights: dict[str, Tensor], blueprint: Blueprint) -> dict[str, str]:
    """The shared table to every block."""
    table = weights.pop(_SHARED)
    names = [f"blocks.{block}.attn.{_TABLE}" for block in range(blueprint.depths[0])]
    weights |= {name: table.clone() for name in names}
    return dict.fromkeys(names, "copied from the shared table")


def _target(blueprint: Blueprint, wanted: Wanted) -> Blueprint:
    if wanted.window is not None and blueprint.window is None:
        raise ValueError(f"a {blueprint.family} has no window; leave --window out")
    if wanted.heads is not None and blueprint.family != "vit":
        raise ValueError(
            f"the tensors of a {blueprint.family} tell its heads: {blueprint.num_heads}; leave --heads out"
        )
    if wanted.per_block and blueprint.family != "beit":
        raise ValueError(f"a {blueprint.family} has no shared position bias that could be copied to every block")
    size = wanted.image_size or blueprint.image_size
    window = wanted.window or _scaled(blueprint, size)
    pretrained = blueprint.pretrained_windows
    if blueprint.family == "swinv2" and window != blueprint.window and pretrained is None:
        pretrained = _own_windows(blueprint)
    return replace(
        blueprint,
        image_size=size,
        window=window,
        pretrained_windows=pretrained,
        channels=wanted.channels or blueprint.channels,
        per_block=blueprint.per_block or wanted.per_block,
    )


def _scaled(blueprint: Blueprint, size: Size) -> int | None:
    """The window that is the same part of the map, where there is one; else the window as it was."""
    window, before = blueprint.window, blueprint.image_size
    if window is None or any(window * new % old for new, old in zip(size, before, strict=True)):
        return window
    scaled = {window * new // old for new, old in zip(size, before, strict=True)}
    return scaled.pop() if len(scaled) == 1 else window


def _own_windows(blueprint: Blueprint) -> tuple[int, ...]:
    """The window of each stage as it is now: no larger than the stage's map."""
    assert blueprint.window is not None
    sides = [min(blueprint.image_size) // blueprint.patch_size // 2**stage for stage in range(len(blueprint.depths))]
    return tuple(min(blueprint.window, side) for side in sides)
