"""Who looks: one adapter for each family of backbones, timm inside, all split after the patch embedding."""

from typing import Annotated

from simmim.config import OneOf
from simmim.encoders.beit import BeitConfig, BeitEncoder
from simmim.encoders.checkpointing import checkpoint_blocks
from simmim.encoders.encoder import Architecture, Encoder, EncoderConfig, Looks
from simmim.encoders.layer_ids import LayerIds, layers_of
from simmim.encoders.layers import blocks_of
from simmim.encoders.swin import SwinConfig, SwinEncoder, SwinV2Config
from simmim.encoders.timm import TimmConfig, TimmEncoder
from simmim.encoders.vit import ViTConfig, ViTEncoder

__all__ = [
    "AnyEncoder",
    "Architecture",
    "BeitConfig",
    "BeitEncoder",
    "Encoder",
    "EncoderConfig",
    "LayerIds",
    "Looks",
    "SwinConfig",
    "SwinEncoder",
    "SwinV2Config",
    "TimmConfig",
    "TimmEncoder",
    "ViTConfig",
    "ViTEncoder",
    "blocks_of",
    "checkpoint_blocks",
    "layers_of",
]

AnyEncoder = Annotated[EncoderConfig, OneOf((ViTConfig, BeitConfig, SwinConfig, SwinV2Config, TimmConfig))]
