"""The layout of Hugging Face transformers: Swin, Swinv2, ViT and Beit, in folders of save_pretrained."""

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor

from simmim.weights.blueprint import Blueprint
from simmim.weights.layout import Family, Layout, Pieces
from simmim.weights.spelling import Spelling

PREFIXES: Mapping[Family, str] = {"swin": "swin.", "swinv2": "swinv2.", "vit": "vit.", "beit": "beit."}

_ATTENTION = [
    ("query.", "q."),
    ("key.", "k."),
    ("value.", "v."),
    ("relative_position_bias_table", "relative_position_bias_table"),
    ("relative_position_bias.relative_position_bias_table", "relative_position_bias_table"),
    ("continuous_position_bias_mlp.", "cpb_mlp."),
    ("logit_scale", "logit_scale"),
    ("relative_position_index", "relative_position_index"),
    ("relative_coords_table", "relative_coords_table"),
]
_LATER = [("q_proj.", "q."), ("k_proj.", "k."), ("v_proj.", "v."), ("o_proj.", "proj.")]  # in memory, not in files
_BLOCK = [
    ("attention.output.dense.", "attn.proj."),
    ("layernorm_before.", "norm1."),
    ("layernorm_after.", "norm2."),
    ("intermediate.dense.", "mlp.fc1."),
    ("output.dense.", "mlp.fc2."),
    ("mlp.fc1.", "mlp.fc1."),
    ("mlp.fc2.", "mlp.fc2."),
    ("lambda_1", "gamma_1"),
    ("lambda_2", "gamma_2"),
]


def _blocks(theirs: str, ours: str, attention: str) -> list[tuple[str, str]]:
    return [
        *((f"{theirs}{attention}{word}", f"{ours}attn.{here}") for word, here in _ATTENTION),
        *((f"{theirs}{word}", f"{ours}{here}") for word, here in _BLOCK),
        *((f"{theirs}attention.{word}", f"{ours}attn.{here}") for word, here in (*_LATER, *_ATTENTION)),
    ]


_EMBEDDINGS = [("embeddings.patch_embeddings.projection.", "patch_embed.proj.")]
_WINDOWED = Spelling(
    [
        *_EMBEDDINGS,
        ("embeddings.norm.", "patch_embed.norm."),
        ("encoder.layers.{}.downsample.", "layers.{+}.downsample."),
        *_blocks("encoder.layers.{}.blocks.{}.", "layers.{}.blocks.{}.", "attention.self."),
        ("layernorm.", "norm."),
        ("classifier.", "head.fc."),
    ]
)
_PLAIN = Spelling(
    [
        *_EMBEDDINGS,
        ("embeddings.cls_token", "cls_token"),
        ("embeddings.position_embeddings", "pos_embed"),
        ("encoder.relative_position_bias.", "rel_pos_bias."),
        ("shared_position_bias.", "rel_pos_bias."),
        *_blocks("encoder.layer.{}.", "blocks.{}.", "attention.attention."),
        *_blocks("layers.{}.", "blocks.{}.", "attention."),
        ("layernorm.", "norm."),
        ("pooler.layernorm.", "fc_norm."),
        ("classifier.", "head."),
    ]
)


def _spelling(windowed: bool) -> Spelling:
    return _WINDOWED if windowed else _PLAIN


class HuggingFace(Layout):
    """`swin.encoder.layers.0.blocks.0.attention.self.query.weight` and its like."""

    name = "Hugging Face"

    def recognises(self, names: Mapping[str, Tensor]) -> bool:
        """By the name of the patch embedding."""
        return any(name.endswith("embeddings.patch_embeddings.projection.weight") for name in names)

    def read(self, tensors: Mapping[str, Tensor], settings: Mapping[str, Any]) -> Pieces:
        """Sort the tensors into their pieces; query, key and value become one."""
        pieces = Pieces(hints=_hints(settings))
        windowed = any(".blocks." in name for name in tensors)
        for name, tensor in tensors.items():
            bare = name
            for prefix in PREFIXES.values():
                bare = bare.removeprefix(prefix)
            if bare == "embeddings.mask_token":
                pieces.mask_token = (name, tensor)
            elif bare.startswith("decoder.0."):
                pieces.decoder[bare.removeprefix("decoder.0.")] = (name, tensor)
            else:
                pieces.put(name, _spelling(windowed).ours(bare), tensor)
        _join(pieces)
        return pieces

    def write(self, backbone: Mapping[str, Tensor], family: Family, *, bare: bool = False) -> dict[str, Tensor]:
        """Our weights under their names; `bare` is the model without a head, which has no prefix."""
        spelling, prefix = _spelling(family in ("swin", "swinv2")), "" if bare else PREFIXES[family]
        written: dict[str, Tensor] = {}
        for name, tensor in _parted(backbone).items():
            theirs = spelling.theirs(name)
            if theirs is None:
                raise ValueError(f"Hugging Face's {family} has no place for {name}")
            written[theirs if theirs.startswith("classifier.") else prefix + theirs] = tensor
        return written


def _join(pieces: Pieces) -> None:
    """Query, key and value as timm keeps them: one weight, and one bias or those of query and value."""
    for query in [name for name in pieces.backbone if name.endswith("attn.q.weight")]:
        start = query.removesuffix("q.weight")
        names = [f"{start}{part}.weight" for part in "qkv"]
        if all(name in pieces.backbone for name in names):
            joined = torch.cat([pieces.backbone[name] for name in names])
            pieces.replace(names, f"{start}qkv.weight", joined, "joined")
        biases = [f"{start}{part}.bias" for part in "qkv"]
        if all(name in pieces.backbone for name in biases):
            joined = torch.cat([pieces.backbone[name] for name in biases])
            pieces.replace(biases, f"{start}qkv.bias", joined, "joined")
        else:
            for part in "qv":
                if f"{start}{part}.bias" in pieces.backbone:
                    bias = pieces.backbone[f"{start}{part}.bias"]
                    pieces.replace([f"{start}{part}.bias"], f"{start}{part}_bias", bias, "renamed")


def _parted(backbone: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The other way round."""
    parted: dict[str, Tensor] = {}
    for name, tensor in backbone.items():
        if name.endswith(("attn.qkv.weight", "attn.qkv.bias")):
            start, _, end = name.rpartition("qkv.")
            parted |= {f"{start}{part}.{end}": third for part, third in zip("qkv", tensor.chunk(3), strict=True)}
        elif name.endswith(("attn.q_bias", "attn.v_bias")):
            parted[f"{name[:-5]}.bias"] = tensor
        else:
            parted[name] = tensor
    return parted


def _hints(settings: Mapping[str, Any]) -> dict[str, Any]:
    """What config.json says and tensors cannot."""
    hints: dict[str, Any] = {}
    size = settings.get("image_size")
    if isinstance(size, int):
        hints["image_size"] = (size, size)
    elif isinstance(size, list):
        height, width = cast("list[int]", size)
        hints["image_size"] = (height, width)
    if isinstance(settings.get("window_size"), int):
        hints["window"] = settings["window_size"]
    heads = settings.get("num_heads", settings.get("num_attention_heads"))
    if heads is not None:
        hints["num_heads"] = (heads,) if isinstance(heads, int) else tuple(cast("list[int]", heads))
    if any(cast("list[int]", settings.get("pretrained_window_sizes", []))):
        hints["pretrained_windows"] = tuple(settings["pretrained_window_sizes"])
    names = cast("dict[str, str]", settings.get("id2label", {}))
    if names:
        hints["classes"] = tuple(names[number] for number in sorted(names, key=int))
    hints["target_window"] = 0  # its loss compares with the pixels themselves
    return hints


def settings_for(blueprint: Blueprint, *, kind: str, classes: Sequence[str]) -> dict[str, Any]:
    """config.json of a backbone.

    Args:
        blueprint: its architecture, for square images.
        kind: MaskedImageModeling, ImageClassification or Model (the bare encoder).
        classes: names of the classes, if any.
    """
    name = {"swin": "Swin", "swinv2": "Swinv2", "vit": "ViT", "beit": "Beit"}[blueprint.family]
    shape = _windowed_shape(blueprint) if blueprint.family in ("swin", "swinv2") else _plain_shape(blueprint)
    labels = {str(number): word for number, word in enumerate(classes)}
    return {
        "architectures": [f"{name}For{kind}" if kind != "Model" else f"{name}Model"],
        "model_type": blueprint.family,
        "image_size": blueprint.image_size[0],
        "patch_size": blueprint.patch_size,
        "num_channels": blueprint.channels,
        "encoder_stride": blueprint.stride,
        "hidden_act": "gelu",
        "drop_path_rate": 0.0,
        "qkv_bias": True,
        **shape,
        **({"id2label": labels, "label2id": {word: int(number) for number, word in labels.items()}} if labels else {}),
    }


def _windowed_shape(blueprint: Blueprint) -> dict[str, Any]:
    return {
        "embed_dim": blueprint.embed_dim,
        "depths": list(blueprint.depths),
        "num_heads": list(blueprint.num_heads),
        "window_size": blueprint.window,
        "mlp_ratio": 4.0,
        "use_absolute_embeddings": False,
        "layer_norm_eps": 1e-5,
        **({"pretrained_window_sizes": list(blueprint.pretrained_windows)} if blueprint.pretrained_windows else {}),
    }


def _plain_shape(blueprint: Blueprint) -> dict[str, Any]:
    shape: dict[str, Any] = {
        "hidden_size": blueprint.embed_dim,
        "num_hidden_layers": blueprint.depths[0],
        "num_attention_heads": blueprint.num_heads[0],
        "intermediate_size": 4 * blueprint.embed_dim,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "layer_norm_eps": 1e-6,
    }
    if blueprint.family == "beit":
        shape |= {
            "use_absolute_position_embeddings": blueprint.absolute,
            "use_shared_relative_position_bias": not blueprint.per_block,
            "use_relative_position_bias": blueprint.per_block,
            "use_mean_pooling": blueprint.pooled,
            "layer_scale_init_value": 0.1,
        }
    return shape
