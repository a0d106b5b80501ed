"""Which layer a parameter of a backbone belongs to, for learning rates that fall from layer to layer.

Layer 0 is the patch embedding with what stands beside it, layer k + 1 the k-th block of all, the last layer (blocks + 1)
everything behind the blocks. (Official file: optimizer.py.)
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

from timm.models import group_parameters  # pyright: ignore[reportPrivateImportUsage, reportUnknownVariableType]
from timm.models.beit import Beit
from timm.models.swin_transformer import SwinTransformer
from timm.models.swin_transformer_v2 import SwinTransformerV2
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from simmim.encoders.beit import BeitEncoder
from simmim.encoders.swin import SwinEncoder
from simmim.encoders.timm import TimmEncoder
from simmim.encoders.vit import ViTEncoder


@dataclass(frozen=True)
class LayerIds:
    """The layers of a backbone, by the names of its parameters."""

    layer_of: Callable[[str], int]
    num_layers: int
    """Blocks; the last layer has the number num_layers + 1."""
    no_decay: tuple[str, ...]
    """Words in the names of parameters that are not decayed, beside vectors and biases."""


def layers_of(backbone: nn.Module) -> LayerIds:
    """The layers of a timm model.

    Raises:
        ValueError: where the model is of no known family and does not say its layers itself.
    """
    if isinstance(backbone, SwinTransformer | SwinTransformerV2):
        depths = [len(stage.blocks) for stage in cast(Any, backbone).layers]
        return LayerIds(lambda name: swin_layer(name, depths), sum(depths), SwinEncoder.no_decay)
    if isinstance(backbone, Beit | VisionTransformer):
        depth = len(cast(Any, backbone).blocks)
        spared = BeitEncoder.no_decay if isinstance(backbone, Beit) else ViTEncoder.no_decay
        return LayerIds(lambda name: plain_layer(name, depth), depth, spared)
    return _layers_by_timm(backbone)


def swin_layer(name: str, depths: list[int]) -> int:
    """The layer of a parameter of Swin or SwinV2, in timm's names.

    The merging between two stages belongs to the last block before it. timm keeps it at the start of the later stage, the
    official code at the end of the earlier one; the layer is the same.
    """
    if name.startswith("patch_embed."):
        return 0
    if found := re.match(r"layers\.(\d+)\.blocks\.(\d+)\.", name):
        return sum(depths[: int(found[1])]) + int(found[2]) + 1
    if found := re.match(r"layers\.(\d+)\.downsample\.", name):
        return sum(depths[: int(found[1])])
    return sum(depths) + 1


def plain_layer(name: str, depth: int) -> int:
    """The layer of a parameter of a ViT or of BEiT's; a position bias shared by all blocks is in the last one."""
    if name.startswith(("patch_embed.", "cls_token", "reg_token", "pos_embed", "norm_pre.")):
        return 0
    if found := re.match(r"blocks\.(\d+)\.", name):
        return int(found[1]) + 1
    return depth + 1


def _layers_by_timm(backbone: Any) -> LayerIds:
    """The layers as timm's own grouping has them."""
    if not hasattr(backbone, "group_matcher"):
        raise ValueError(f"{type(backbone).__name__} does not say which layers it has; set layer_decay=1")
    layers = cast("dict[str, int]", group_parameters(backbone, backbone.group_matcher(coarse=False), reverse=True))
    spared = set(backbone.no_weight_decay()) if hasattr(backbone, "no_weight_decay") else set[str]()
    no_decay = (*TimmEncoder.no_decay, "cpb_mlp", *sorted(spared))
    return LayerIds(layers.__getitem__, max(layers.values()) - 1, no_decay)
