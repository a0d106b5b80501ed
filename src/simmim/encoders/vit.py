"""The plain vision transformer with absolute positions (timm's VisionTransformer)."""

from typing import Any, Literal

import torch
from pydantic import Field
from timm.models.vision_transformer import VisionTransformer

from simmim.encoders.encoder import Architecture, Encoder, EncoderConfig
from simmim.shapes import Features, Images, Tokens
from simmim.units import Pixels, Size, check_multiple


class PlainTransformerConfig(EncoderConfig, frozen=True):
    """Settings that transformers with tokens of one size share; what is left out is as in the named model."""

    patch_size: Pixels | None = Field(default=None, gt=0)
    """Pixels a side of one token."""
    embed_dim: int | None = Field(default=None, gt=0)
    """Channels of a token."""
    depth: int | None = Field(default=None, gt=0)
    """Number of blocks."""
    num_heads: int | None = Field(default=None, gt=0)
    """Attention heads a block."""

    def shape(self) -> dict[str, Any]:
        """The arguments of the family for timm."""
        return {
            "patch_size": self.patch_size,
            "embed_dim": self.embed_dim,
            "depth": self.depth,
            "num_heads": self.num_heads,
        }


class ViTConfig(PlainTransformerConfig, frozen=True):
    """A ViT with absolute positions."""

    kind: Literal["vit"] = "vit"
    name: str = "vit_base_patch16_224"
    """timm model whose shape is taken; the weights start at random."""

    def build(self, *, image_size: Size, in_channels: int) -> "ViTEncoder":
        """Make the encoder with random weights."""
        return ViTEncoder(
            self.architecture(image_size=image_size, in_channels=in_channels),
            image_size=image_size,
            in_channels=in_channels,
        )


class PlainTransformerEncoder(Encoder):
    """What ViT and BEiT share: one row of tokens of one size, class token first."""

    def __init__(self, architecture: Architecture, *, image_size: Size, in_channels: int) -> None:
        super().__init__(architecture, image_size=image_size, in_channels=in_channels)
        self.patch_size = self.stride = int(self.backbone.patch_embed.patch_size[0])
        check_multiple(image_size, self.patch_size, "the model patch")
        self.embed_dim = self.num_features = int(self.backbone.num_features)
        self.grid: Size = tuple(self.backbone.patch_embed.grid_size)

    def embed(self, images: Images) -> Tokens:
        """The patch embeddings, before class token and positions."""
        self.check_size(images)
        row: torch.Tensor = self.backbone.patch_embed(images)
        return row.reshape(row.shape[0], *self.grid, row.shape[2])

    def to_map(self, row: torch.Tensor) -> Features:
        """Drop the prefix tokens and lay the rest out as a map."""
        patches = row[:, self.backbone.num_prefix_tokens :].transpose(1, 2)
        return patches.reshape(*patches.shape[:2], *self.grid)

    def _pyramid_indices(self) -> list[int]:
        depth = len(self.backbone.blocks)
        return sorted({max(depth * quarter // 4, 1) - 1 for quarter in (1, 2, 3, 4)})


class ViTEncoder(PlainTransformerEncoder):
    """timm's VisionTransformer, stopped after the patch embedding."""

    family = (VisionTransformer,)
    no_decay = no_decay_as_run = ("cls_token", "pos_embed", "reg_token")

    def encode(self, tokens: Tokens) -> Features:
        """Add class token and positions, run the blocks and the final norm."""
        vit = self.backbone
        row = vit.norm_pre(vit.patch_drop(vit._pos_embed(tokens.flatten(1, 2))))
        return self.to_map(vit.norm(vit.blocks(row)))
