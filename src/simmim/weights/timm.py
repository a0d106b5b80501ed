"""The layout of timm, which is ours: state dicts, and folders that `local-dir:` reads."""

from collections.abc import Mapping
from typing import Any, cast

import timm
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from simmim.weights.layout import Layout, Pieces


class Timm(Layout):
    """Bare names; a merge belongs to the stage behind it."""

    name = "timm"

    def recognises(self, names: Mapping[str, Tensor]) -> bool:
        """By the name of the patch embedding."""
        return "patch_embed.proj.weight" in names

    def read(self, tensors: Mapping[str, Tensor], settings: Mapping[str, Any]) -> Pieces:
        """The tensors as they are."""
        pieces = Pieces(hints=_hints(settings))
        for name, tensor in tensors.items():
            pieces.put(name, name, tensor)
        return pieces


def _shape_of(name: object) -> dict[str, Any]:
    """What the name of a plain ViT says and its tensors do not."""
    if not isinstance(name, str) or not timm.is_model(name):
        return {}
    with torch.device("meta"):
        model = timm.create_model(name, pretrained=False)
    plain = isinstance(model, VisionTransformer)
    return {"num_heads": int(cast(Any, model).blocks[0].attn.num_heads)} if plain else {}


def _hints(settings: Mapping[str, Any]) -> dict[str, Any]:
    """What a folder's config.json says."""
    arguments = {**_shape_of(settings.get("architecture")), **cast("Mapping[str, Any]", settings.get("model_args", {}))}
    config = cast("Mapping[str, Any]", settings.get("pretrained_cfg", {}))
    hints: dict[str, Any] = {}
    size = arguments.get("img_size") or list(config.get("input_size", []))[1:]
    if size:
        hints["image_size"] = (size, size) if isinstance(size, int) else tuple(cast("list[int]", size))
    for theirs, ours in (("window_size", "window"), ("num_heads", "num_heads"), ("label_names", "classes")):
        value = arguments.get(theirs, settings.get(theirs))
        if isinstance(value, int):
            hints[ours] = value if ours == "window" else (value,)
        elif isinstance(value, list):
            hints[ours] = tuple(cast("list[Any]", value))
    for word in ("mean", "std"):
        if word in config:
            hints[word] = tuple(cast("list[float]", config[word]))
    return hints
