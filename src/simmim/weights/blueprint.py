"""What a backbone's tensors say of its architecture."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from simmim.encoders import BeitConfig, EncoderConfig, SwinConfig, SwinV2Config, ViTConfig
from simmim.units import Size
from simmim.weights.layout import Family

_TABLE = "attn.relative_position_bias_table"
_MLP = 4
_HEAD_WIDTH, _HUGE = 64, {1280: 16}  # the published plain ViTs, Ti to L and H, whose tensors do not tell their heads


@dataclass(frozen=True)
class Blueprint:
    """The architecture of a backbone, in the numbers that timm builds it of."""

    family: Family
    image_size: Size
    channels: int
    patch_size: int
    embed_dim: int
    depths: tuple[int, ...]
    """Blocks of each stage; one number for a plain transformer."""
    num_heads: tuple[int, ...]
    window: int | None = None
    pretrained_windows: tuple[int, ...] | None = None
    """SwinV2: the windows that its coordinates are measured in, where they are not its own."""
    per_block: bool = False
    """BEiT: a position bias for every block in the place of a shared one."""
    absolute: bool = False
    """BEiT: position embeddings beside the bias."""
    pooled: bool = False
    """Plain transformers: the norm stands behind the mean of the patches (fine-tuned), not before."""
    classes: int = 0
    guessed: tuple[str, ...] = ()
    """What neither tensors nor configuration say, in words for a person."""

    @property
    def stride(self) -> int:
        """Pixels a side of one cell of the last map."""
        return self.patch_size * 2 ** (len(self.depths) - 1)

    def encoder(self) -> EncoderConfig:
        """The encoder of a recipe that is this backbone."""
        if self.family in ("swin", "swinv2"):
            shape: dict[str, Any] = {
                "window": self.window,
                "patch_size": self.patch_size,
                "embed_dim": self.embed_dim,
                "depths": self.depths,
                "num_heads": self.num_heads,
            }
            if self.family == "swin":
                return SwinConfig(**shape)
            return SwinV2Config(**shape, pretrained_windows=self.pretrained_windows)
        plain: dict[str, Any] = {
            "patch_size": self.patch_size,
            "embed_dim": self.embed_dim,
            "depth": self.depths[0],
            "num_heads": self.num_heads[0],
        }
        if self.family == "vit":
            return ViTConfig(**plain)
        bias = "per_block" if self.per_block else "shared"
        return BeitConfig(**plain, position_bias=bias, absolute_positions=self.absolute, final_norm=not self.pooled)

    def arguments(self) -> dict[str, Any]:
        """What timm.create_model is called with for the whole backbone, classifier and all."""
        encoder = self.encoder().architecture(image_size=self.image_size, in_channels=self.channels)
        more: dict[str, Any] = {}
        if self.classes or self.pooled:
            more = {"num_classes": self.classes}
            if self.pooled or self.family in ("swin", "swinv2"):
                more |= {"global_pool": "avg"}
        return {**encoder.arguments, **more}


def read_blueprint(
    backbone: Mapping[str, Tensor], buffers: Mapping[str, Tensor], hints: Mapping[str, Any]
) -> Blueprint:
    """Read the architecture off the tensors, with what the file says beside them.

    Args:
        backbone: by timm's names.
        buffers: index tables and masks, by timm's names; the official code stores them.
        hints: image_size, window, num_heads, pretrained_windows, where the file or a person says them; wanted_window and
            wanted_size are taken where nothing else tells.

    Raises:
        ValueError: where the tensors are of no backbone that is known here, or do not tell what is needed.
    """
    family = _family(backbone)
    projection = backbone["patch_embed.proj.weight"]
    width, channels, patch = projection.shape[0], projection.shape[1], projection.shape[2]
    depths = _depths(backbone)
    first = "layers.0.blocks.0." if family in ("swin", "swinv2") else "blocks.0."
    if f"{first}mlp.fc1.weight" in backbone and len(backbone[f"{first}mlp.fc1.weight"]) != _MLP * width:
        raise ValueError(
            f"its MLP is {len(backbone[f'{first}mlp.fc1.weight']) / width:g} times as wide; read are those of {_MLP}"
        )
    plain = {"channels": channels, "patch_size": patch, "embed_dim": width, "depths": depths}
    if family in ("swin", "swinv2"):
        return _windowed(family, backbone, buffers, hints, plain)
    return _one_size(family, backbone, hints, plain)


def _family(backbone: Mapping[str, Tensor]) -> Family:
    if "patch_embed.proj.weight" in backbone and "layers.0.blocks.0.norm1.weight" in backbone:
        return "swinv2" if "layers.0.blocks.0.attn.logit_scale" in backbone else "swin"
    if "patch_embed.proj.weight" in backbone and "blocks.0.norm1.weight" in backbone:
        relative = f"blocks.0.{_TABLE}" in backbone or "rel_pos_bias.relative_position_bias_table" in backbone
        return "beit" if relative else "vit"
    raise ValueError("the weights are of no Swin, SwinV2 or ViT")


def _depths(backbone: Mapping[str, Tensor]) -> tuple[int, ...]:
    found: dict[int, set[int]] = {}
    for name in backbone:
        words = name.split(".")
        if words[0] == "layers" and words[2] == "blocks":
            found.setdefault(int(words[1]), set()).add(int(words[3]))
        elif words[0] == "blocks":
            found.setdefault(0, set()).add(int(words[1]))
    return tuple(max(found[stage]) + 1 for stage in sorted(found))


def _divisors(number: int) -> str:
    return ", ".join(str(each) for each in range(1, number // 8 + 1) if number % each == 0)


def _classes(backbone: Mapping[str, Tensor]) -> int:
    return next((len(backbone[name]) for name in ("head.fc.weight", "head.weight") if name in backbone), 0)


def _windowed(
    family: Family,
    backbone: Mapping[str, Tensor],
    buffers: Mapping[str, Tensor],
    hints: Mapping[str, Any],
    plain: Mapping[str, Any],
) -> Blueprint:
    stages = range(len(plain["depths"]))
    heads = tuple(
        len(backbone[f"layers.{stage}.blocks.0.attn.logit_scale"])
        if family == "swinv2"
        else backbone[f"layers.{stage}.blocks.0.{_TABLE}"].shape[1]
        for stage in stages
    )
    windows = [_window(stage, backbone, buffers) for stage in stages]
    known = [window for window in windows if window]
    window = hints.get("window") or (max(known) if known else hints.get("wanted_window"))
    if window is None:
        raise ValueError(
            "the tensors of a SwinV2 do not tell its window, and there is no config.json or index table beside them; say it "
            "with simmim import --window, and --image-size"
        )
    size, guessed = _image_size(windows, window, buffers, hints, plain)
    pretrained = hints.get("pretrained_windows") or _pretrained(stages, buffers, windows)
    return Blueprint(
        family=family,
        image_size=size,
        num_heads=heads,
        window=window,
        pretrained_windows=pretrained,
        classes=_classes(backbone),
        guessed=guessed,
        **plain,
    )


def _window(stage: int, backbone: Mapping[str, Tensor], buffers: Mapping[str, Tensor]) -> int | None:
    """The window of a stage, by its table or its index; 0 where it is not square."""
    table = backbone.get(f"layers.{stage}.blocks.0.{_TABLE}")
    index = buffers.get(f"layers.{stage}.blocks.0.attn.relative_position_index")
    if index is not None and index.ndim == 2:
        return _root(index.shape[0])
    return None if table is None else (_root(table.shape[0]) + 1) // 2


def _root(count: int) -> int:
    side = math.isqrt(count)
    return side if side * side == count else 0


def _image_size(
    windows: list[int | None],
    window: int,
    buffers: Mapping[str, Tensor],
    hints: Mapping[str, Any],
    plain: Mapping[str, Any],
) -> tuple[Size, tuple[str, ...]]:
    """As it was said; else by the windows of the first shifted block; else such that the last map is one window."""
    if "image_size" in hints:
        return hints["image_size"], ()
    if hints.get("wanted_size") and not any(windows):
        return hints["wanted_size"], ()  # nothing in the weights depends on it
    mask = buffers.get("layers.0.blocks.1.attn_mask")
    if mask is not None and _root(mask.shape[0]):
        side = _root(mask.shape[0]) * _root(mask.shape[1]) * plain["patch_size"]
        return (side, side), ()
    stride = plain["patch_size"] * 2 ** (len(plain["depths"]) - 1)
    side = stride * (windows[-1] or window)
    return (side, side), (f"the image size ({side} px: the last map is taken to be one window)",)


def _pretrained(stages: range, buffers: Mapping[str, Tensor], windows: list[int | None]) -> tuple[int, ...] | None:
    """SwinV2 stores its coordinates: their largest tells which window they are measured in."""
    found: list[int] = []
    for stage in stages:
        table, window = buffers.get(f"layers.{stage}.blocks.0.attn.relative_coords_table"), windows[stage]
        if table is None or not window or window == 1:
            return None
        largest = 2 ** (3 * float(table.max())) - 1  # 8 * (window - 1) / (pretrained - 1)
        found.append(round(8 * (window - 1) / largest) + 1)
    return None if found == windows else tuple(found)


def _one_size(
    family: Family, backbone: Mapping[str, Tensor], hints: Mapping[str, Any], plain: Mapping[str, Any]
) -> Blueprint:
    shared, own = "rel_pos_bias.relative_position_bias_table", f"blocks.0.{_TABLE}"
    guessed: tuple[str, ...] = ()
    if family == "beit":
        table = backbone[shared if shared in backbone else own]
        side, heads = (_root(len(table) - 3) + 1) // 2, table.shape[1]
    else:
        if "pos_embed" not in backbone:
            raise ValueError("a ViT without position embeddings (pos_embed) is not read")
        side, heads = _root(backbone["pos_embed"].shape[1] - 1), 0
        if "num_heads" in hints:
            heads = hints["num_heads"][0]
        else:
            heads = _HUGE.get(plain["embed_dim"]) or max(plain["embed_dim"] // _HEAD_WIDTH, 1)
            guessed = (
                f"the number of heads ({heads}, as published for this width; simmim import --heads says another)",
            )
        if plain["embed_dim"] % heads:
            raise ValueError(
                f"{heads} heads do not share {plain['embed_dim']} channels; allowed: {_divisors(plain['embed_dim'])}"
            )
    size = hints.get("image_size") or ((side * plain["patch_size"],) * 2 if side > 0 else hints.get("wanted_size"))
    if not size:
        raise ValueError("the grid of its patches is not square; say the image size with --image-size HEIGHTxWIDTH")
    return Blueprint(
        family=family,
        image_size=size,
        num_heads=(heads,),
        per_block=own in backbone,
        absolute=family == "beit" and "pos_embed" in backbone,
        pooled="fc_norm.weight" in backbone,
        classes=_classes(backbone),
        guessed=guessed,
        **plain,
    )
