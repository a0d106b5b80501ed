"""Every part, found through the visible union of its contract: a new one is tested the moment it is added."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch

from simmim.config import OneOf, Part
from simmim.encoders import (
    AnyEncoder,
    BeitConfig,
    Encoder,
    EncoderConfig,
    SwinConfig,
    SwinV2Config,
    TimmConfig,
    ViTConfig,
)
from simmim.heads import InverseSwinHeadConfig
from simmim.targets import (
    ClusterTarget,
    DiscreteVAE,
    PatchPixelTarget,
    TokenTarget,
    VAEShape,
    save_tokenizer,
)
from simmim.units import Size

Case = tuple[str, EncoderConfig, Size, int]
"""A name, settings of a small network, an image size, a number of channels."""


def parts_of(union: Any) -> tuple[type[Part], ...]:
    """The classes a field may hold."""
    (one_of,) = [item for item in get_args(union)[1:] if isinstance(item, OneOf)]
    return one_of.choices


_VIT = {"patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2}
_SWIN = {"patch_size": 2, "embed_dim": 16, "depths": (2, 2), "num_heads": (2, 4)}
_GIANT = {**_SWIN, "name": "swinv2_giant_window12_192", "window": 4, "extra_norm_every": 3, "sequential_stages": 1}
_EVA = {"embed_dim": 24, "depth": 2, "num_heads": 2, "patch_size": 8}

SMALL: dict[type[Part], list[Case]] = {
    ViTConfig: [
        ("vit", ViTConfig(name="vit_tiny_patch16_224", **_VIT), (32, 32), 3),
        ("vit wide, 1 channel", ViTConfig(name="vit_tiny_patch16_224", **_VIT), (16, 48), 1),
        ("vit with registers", ViTConfig(name="vit_small_patch14_reg4_dinov2", **_VIT), (32, 32), 4),
    ],
    BeitConfig: [
        ("beit", BeitConfig(**_VIT), (32, 32), 3),
        ("beit tall, 13 channels", BeitConfig(**_VIT), (48, 16), 13),
    ],
    SwinConfig: [
        ("swin", SwinConfig(window=4, **_SWIN), (32, 32), 3),
        ("swin wide, 4 channels", SwinConfig(window=3, **_SWIN), (16, 40), 4),
    ],
    SwinV2Config: [
        ("swinv2", SwinV2Config(window=4, **_SWIN), (32, 32), 3),
        ("swinv2 tall, 1 channel", SwinV2Config(window=4, **_SWIN), (48, 16), 1),
        ("swinv2 giant", SwinV2Config(**_GIANT), (32, 32), 3),
    ],
    TimmConfig: [
        ("timm eva02", TimmConfig(name="eva02_tiny_patch14_224", arguments=_EVA), (32, 32), 3),
        ("timm eva02 wide", TimmConfig(name="eva02_tiny_patch14_224", arguments=_EVA), (16, 48), 13),
        ("timm deit3", TimmConfig(name="deit3_small_patch16_224", arguments=_EVA), (32, 32), 1),
        ("timm deit distilled", TimmConfig(name="deit_tiny_distilled_patch16_224", arguments=_EVA), (32, 32), 3),
        ("timm hiera", TimmConfig(name="hiera_tiny_224", arguments={"embed_dim": 24, "num_heads": 1}), (64, 64), 4),
        ("timm swin", TimmConfig(name="swin_tiny_patch4_window7_224", arguments={"embed_dim": 24}), (64, 64), 3),
    ],
}


def encoder_cases() -> Iterator[Case]:
    """The small networks of every encoder that can be chosen."""
    for choice in parts_of(AnyEncoder):
        assert SMALL.get(choice), f"{choice.__name__} is new: give it small networks in tests/reference/parts.py"
        yield from SMALL[choice]


def build(case: Case) -> Encoder:
    """The network of a case, the same each time."""
    _, config, size, channels = case
    torch.manual_seed(0)
    return config.build(image_size=size, in_channels=channels).eval()


def images_for(case: Case, batch: int = 2) -> torch.Tensor:
    """Images of its size."""
    return torch.randn(batch, case[3], *case[2], generator=torch.Generator().manual_seed(1))


def example_head(config: type) -> Any:
    """A head of that class, small enough for a test."""
    if config is InverseSwinHeadConfig:
        return config(width=16, depths=(1, 1, 1, 1), num_heads=(2, 1, 1, 1), window=3)
    return config()


def example_target(config: type, *, channels: int, folder: Path) -> Any:
    """A target of that class that fits the small encoders, with the files it reads."""
    if config is PatchPixelTarget:
        return config(patch=4)
    if config is ClusterTarget:
        np.save(folder / "palette.npy", np.random.default_rng(0).random((6, channels)))
        return config(centres=str(folder / "palette.npy"), stride=2)
    if config is TokenTarget:
        torch.manual_seed(0)
        shape = VAEShape(channels=channels, words=6, width=8, blocks=1, groups=2, embedding=4, squashed=False)
        save_tokenizer(folder / "tokenizer.safetensors", DiscreteVAE(shape))
        return config(weights=str(folder / "tokenizer.safetensors"))
    return config()
