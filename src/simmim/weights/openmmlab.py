"""The layout of OpenMMLab's mmpretrain and of its detectors and segmenters, which keep the same backbones."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from simmim.weights.layout import Layout, Pieces
from simmim.weights.spelling import Spelling

_BLOCK = [
    ("attn.w_msa.", "attn."),
    ("attn.", "attn."),
    ("ffn.layers.0.0.", "mlp.fc1."),
    ("ffn.layers.1.", "mlp.fc2."),
    ("ln1.", "norm1."),
    ("ln2.", "norm2."),
    ("norm1.", "norm1."),
    ("norm2.", "norm2."),
    ("gamma_", "gamma_"),
]
_WINDOWED = Spelling(
    [
        ("patch_embed.projection.", "patch_embed.proj."),
        ("patch_embed.norm.", "patch_embed.norm."),
        ("stages.{}.downsample.", "layers.{+}.downsample."),
        *((f"stages.{{}}.blocks.{{}}.{theirs}", f"layers.{{}}.blocks.{{}}.{ours}") for theirs, ours in _BLOCK),
        ("norm3.", "norm."),
        ("head.fc.", "head.fc."),
    ]
)
_PLAIN = Spelling(
    [
        ("patch_embed.projection.", "patch_embed.proj."),
        ("cls_token", "cls_token"),
        ("pos_embed", "pos_embed"),
        ("rel_pos_bias.", "rel_pos_bias."),
        *((f"layers.{{}}.{theirs}", f"blocks.{{}}.{ours}") for theirs, ours in _BLOCK),
        ("ln1.", "norm."),
        ("ln2.", "fc_norm."),
        ("head.layers.head.", "head."),
        ("head.fc.", "head."),
    ]
)


class OpenMMLab(Layout):
    """`backbone.stages.0.blocks.0.attn.w_msa.qkv.weight` and its like."""

    name = "OpenMMLab"

    def recognises(self, names: Mapping[str, Tensor]) -> bool:
        """By the name of the patch embedding."""
        return bool({"backbone.patch_embed.projection.weight", "patch_embed.projection.weight"} & set(names))

    def read(self, tensors: Mapping[str, Tensor], settings: Mapping[str, Any]) -> Pieces:
        """Sort the tensors into their pieces; merges are brought from the order of nn.Unfold to that of slices."""
        pieces = Pieces()
        windowed = any("stages." in name for name in tensors)
        for name, tensor in tensors.items():
            bare = name.removeprefix("backbone.")
            if bare == "mask_token":
                pieces.mask_token = (name, tensor.reshape(1, 1, -1))
            elif name.startswith("neck.decoder.0."):
                pieces.decoder[name.removeprefix("neck.decoder.0.")] = (name, tensor)
            else:
                pieces.put(name, (_WINDOWED if windowed else _PLAIN).ours(bare), tensor)
        _reorder(pieces)
        return pieces


def _reorder(pieces: Pieces) -> None:
    """nn.Unfold lays the four merged patches out channel by channel, row by row; slices patch by patch, column by column."""
    for name in [name for name in pieces.backbone if ".downsample." in name]:
        tensor = pieces.backbone[name]
        width = pieces.backbone[f"{name.split('.downsample.')[0]}.downsample.reduction.weight"].shape[1]
        if tensor.shape[-1] == width:
            square = tensor.reshape(*tensor.shape[:-1], width // 4, 2, 2)
            pieces.replace([name], name, square.movedim((-1, -2), (-3, -2)).reshape(tensor.shape), "reordered")
