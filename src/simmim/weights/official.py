"""The layout of microsoft/SimMIM and microsoft/Swin-Transformer."""

from collections.abc import Mapping
from typing import Any, cast

from torch import Tensor

from simmim.weights.blueprint import Blueprint
from simmim.weights.layout import Family, Layout, Pieces, said
from simmim.weights.spelling import Spelling

_SWIN = Spelling([("layers.{}.downsample.", "layers.{+}.downsample."), ("head.", "head.fc."), ("", "")])


class Official(Layout):
    """Names with `encoder.` in front and `decoder.0` in a pre-training file, bare ones in a fine-tuned one."""

    name = "official"

    def recognises(self, names: Mapping[str, Tensor]) -> bool:
        """By the prefix, or by buffers and merges that only the official code stores."""
        bare = {name.removeprefix("encoder.") for name in names}
        return "patch_embed.proj.weight" in bare and (
            "encoder.patch_embed.proj.weight" in names
            or any("relative_position_index" in name or "rpe_mlp" in name for name in bare)
            or any(name.startswith("layers.0.downsample.") for name in bare)
        )

    def read(self, tensors: Mapping[str, Tensor], settings: Mapping[str, Any]) -> Pieces:
        """Sort the tensors into backbone, mask token and decoder, under our names."""
        pieces = Pieces()
        swin = any(".blocks." in name and "layers." in name for name in tensors)
        wrapped = any(name.startswith("encoder.") for name in tensors)
        for name, tensor in tensors.items():
            bare = name.removeprefix("encoder.")
            if bare == "mask_token":
                pieces.mask_token = (name, tensor)
            elif name.startswith("decoder.0."):
                pieces.decoder[name.removeprefix("decoder.0.")] = (name, tensor)
            elif wrapped and bare == name:
                pieces.strangers.append(name)
            else:
                pieces.put(name, _SWIN.ours(bare.replace("rpe_mlp", "cpb_mlp")) if swin else bare, tensor)
        _read_settings(pieces, settings)
        return pieces

    def write(self, backbone: Mapping[str, Tensor], family: Family, *, wrapped: bool) -> dict[str, Tensor]:
        """Our names as the official code spells them; in a pre-training file, below `encoder.`."""
        swin = family in ("swin", "swinv2")
        named = {(_SWIN.theirs(name) if swin else name) or name: tensor for name, tensor in backbone.items()}
        return {f"encoder.{name}": tensor for name, tensor in named.items()} if wrapped else named


def _read_settings(pieces: Pieces, settings: Mapping[str, Any]) -> None:
    """What the pickled configuration says: names differ between the two repositories."""
    size = said(settings, "DATA.IMG_SIZE")
    if isinstance(size, int):
        pieces.hints["image_size"] = (size, size)
    elif isinstance(size, list | tuple):
        height, width = cast("list[int]", size)
        pieces.hints["image_size"] = (height, width)
    kind = said(settings, "MODEL.TYPE")
    block = {"swin": "SWIN", "swinv2": "SWINV2", "vit": "VIT"}.get(str(kind), "SWIN")
    window = said(settings, f"MODEL.{block}.WINDOW_SIZE")
    if isinstance(window, int):
        pieces.hints["window"] = window
    heads = said(settings, f"MODEL.{block}.NUM_HEADS")
    if heads is not None:
        pieces.hints["num_heads"] = (heads,) if isinstance(heads, int) else tuple(cast("list[int]", heads))
    windows = said(settings, f"MODEL.{block}.PRETRAINED_WINDOW_SIZES")
    if isinstance(windows, list | tuple) and any(cast("list[int]", windows)):
        pieces.hints["pretrained_windows"] = tuple(cast("list[int]", windows))
    for word in ("mean", "std"):  # ours: the official code knows ImageNet's alone
        numbers = said(settings, f"DATA.{word.upper()}")
        if isinstance(numbers, list | tuple):
            pieces.hints[word] = tuple(cast("list[float]", numbers))
    normalised = said(settings, "MODEL.SIMMIM.NORM_TARGET.ENABLE")
    if normalised is None and kind is not None:  # microsoft/SimMIM has no such word: its target is the pixels
        pieces.hints["target_window"] = 0
    elif normalised is not None:
        side = said(settings, "MODEL.SIMMIM.NORM_TARGET.PATCH_SIZE")
        pieces.hints["target_window"] = int(cast(int, side or 47)) if normalised else 0
    for path, hint in (("DATA.MASK_PATCH_SIZE", "mask_patch"), ("DATA.MASK_RATIO", "ratio")):
        value = said(settings, path)
        if value is not None:
            pieces.hints[hint] = value


def official_settings(
    blueprint: Blueprint, *, target_window: int, mean: tuple[float, ...], std: tuple[float, ...]
) -> dict[str, Any]:
    """What the official configuration would say, as plain words and numbers; and the statistics of the pixels."""
    kind = {"swin": "swin", "swinv2": "swinv2", "beit": "vit"}[blueprint.family]
    plain = blueprint.family == "beit"
    block: dict[str, Any] = {
        "PATCH_SIZE": blueprint.patch_size,
        "IN_CHANS": blueprint.channels,
        "EMBED_DIM": blueprint.embed_dim,
        "NUM_HEADS": blueprint.num_heads[0] if plain else list(blueprint.num_heads),
        ("DEPTH" if plain else "DEPTHS"): blueprint.depths[0] if plain else list(blueprint.depths),
    }
    if plain:
        block |= {
            "USE_APE": blueprint.absolute,
            "USE_RPB": blueprint.per_block,
            "USE_SHARED_RPB": not blueprint.per_block,
            "USE_MEAN_POOLING": blueprint.pooled,
        }
    else:
        block["WINDOW_SIZE"] = blueprint.window
    if blueprint.pretrained_windows is not None:
        block["PRETRAINED_WINDOW_SIZES"] = list(blueprint.pretrained_windows)
    height, width = blueprint.image_size
    target = {"ENABLE": bool(target_window), "PATCH_SIZE": target_window or 47}
    return {
        "DATA": {
            "IMG_SIZE": height if height == width else [height, width],
            "MEAN": list(mean),
            "STD": list(std),
        },
        "MODEL": {"TYPE": kind, kind.upper(): block, "SIMMIM": {"NORM_TARGET": target}},
    }
