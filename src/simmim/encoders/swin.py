"""Swin and SwinV2: hierarchical transformers with shifted windows (timm's SwinTransformer and SwinTransformerV2)."""

from typing import Any, Literal

from pydantic import Field
from timm.models.swin_transformer import SwinTransformer
from timm.models.swin_transformer_v2 import SwinTransformerV2

from simmim.encoders import giants as giants  # makes them known to timm
from simmim.encoders.encoder import Architecture, Encoder, EncoderConfig
from simmim.shapes import Features, Images, Tokens
from simmim.units import Pixels, Size, check_multiple


class WindowedConfig(EncoderConfig, frozen=True):
    """Settings that Swin and SwinV2 share; what is left out is as in the named model."""

    window: int | None = Field(default=None, gt=0)
    """Tokens a side of an attention window; shrunk by itself where the map is smaller."""
    patch_size: Pixels | None = Field(default=None, gt=0)
    """Pixels a side of one token."""
    embed_dim: int | None = Field(default=None, gt=0)
    """Channels of a token; doubled at every stage."""
    depths: tuple[int, ...] | None = None
    """Blocks of each stage."""
    num_heads: tuple[int, ...] | None = None
    """Attention heads of each stage."""

    def shape(self) -> dict[str, Any]:
        """The arguments of the family for timm."""
        return {
            "window_size": self.window,
            "patch_size": self.patch_size,
            "embed_dim": self.embed_dim,
            "depths": self.depths,
            "num_heads": self.num_heads,
        }

    def build(self, *, image_size: Size, in_channels: int) -> "SwinEncoder":
        """Make the encoder with random weights."""
        return SwinEncoder(
            self.architecture(image_size=image_size, in_channels=in_channels),
            image_size=image_size,
            in_channels=in_channels,
        )


class SwinConfig(WindowedConfig, frozen=True):
    """A Swin transformer."""

    kind: Literal["swin"] = "swin"
    name: str = "swin_base_patch4_window7_224"
    """timm model whose shape is taken; the weights start at random."""


class SwinV2Config(WindowedConfig, frozen=True):
    """A SwinV2 transformer: norms behind the branches, cosine attention, continuous position bias."""

    kind: Literal["swinv2"] = "swinv2"
    name: str = "swinv2_base_window8_256"
    """timm model whose shape is taken, or swinv2_huge_window12_192 or swinv2_giant_window12_192, which come with simmim;
    the weights start at random."""
    pretrained_windows: tuple[int, ...] | None = None
    """Windows of each stage that the weights were trained with, from which the position bias is continued to others."""
    extra_norm_every: int | None = Field(default=None, ge=0)
    """Blocks from one further norm on the main branch to the next; for the huge and the giant one, 6 if not given."""
    sequential_stages: int | None = Field(default=None, ge=0)
    """How many of the first stages attend a few windows at a time, to save memory; for the huge and the giant one."""

    def shape(self) -> dict[str, Any]:
        """The arguments of the family for timm."""
        return {
            **super().shape(),
            "pretrained_window_sizes": self.pretrained_windows,
            "extra_norm_every": self.extra_norm_every,
            "sequential_stages": self.sequential_stages,
        }


class SwinEncoder(Encoder):
    """timm's Swin or SwinV2, stopped after the patch embedding and its norm."""

    family = (SwinTransformer, SwinTransformerV2)
    no_decay_as_run = ("mask_token", "absolute_pos_embed")
    no_decay = (*no_decay_as_run, "relative_position_bias_table", "cpb_mlp", "logit_scale")

    def __init__(self, architecture: Architecture, *, image_size: Size, in_channels: int) -> None:
        super().__init__(architecture, image_size=image_size, in_channels=in_channels)
        self.patch_size = int(self.backbone.patch_embed.patch_size[0])
        self.stride = self.patch_size * 2 ** (len(self.backbone.layers) - 1)
        check_multiple(image_size, self.stride, "the encoder's stride")
        self.embed_dim = int(self.backbone.embed_dim)
        self.num_features = int(self.backbone.num_features)

    def embed(self, images: Images) -> Tokens:
        """The normalised patch embeddings."""
        self.check_size(images)
        return self.backbone.patch_embed(images)

    def encode(self, tokens: Tokens) -> Features:
        """Run the stages and the final norm; the map leaves with channels first."""
        return self.backbone.norm(self.backbone.layers(tokens)).permute(0, 3, 1, 2)
