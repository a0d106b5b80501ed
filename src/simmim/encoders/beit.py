"""The paper's own ViT: BEiT's, with one relative position bias shared by all blocks and no absolute positions."""

from typing import Any, Literal

import torch
from pydantic import Field
from timm.models.beit import Beit

from simmim.encoders.vit import PlainTransformerConfig, PlainTransformerEncoder
from simmim.shapes import Features, Tokens
from simmim.units import Size


class BeitConfig(PlainTransformerConfig, frozen=True):
    """BEiT's ViT as the paper pre-trains it. (Official file: models/vision_transformer.py.)"""

    kind: Literal["beit"] = "beit"
    name: str = "beit_base_patch16_224"
    """timm model whose shape is taken; the weights start at random."""
    layer_scale: float = Field(default=0.1, gt=0)
    """Initial scale of every residual branch."""

    def shape(self) -> dict[str, Any]:
        """The arguments of the family for timm: shared bias, no absolute positions, final norm before pooling."""
        return {
            **super().shape(),
            "init_values": self.layer_scale,
            "use_abs_pos_emb": False,
            "use_rel_pos_bias": False,
            "use_shared_rel_pos_bias": True,
            "global_pool": "token",
        }

    def build(self, *, image_size: Size, in_channels: int) -> "BeitEncoder":
        """Make the encoder with random weights."""
        return BeitEncoder(
            self.architecture(image_size=image_size, in_channels=in_channels),
            image_size=image_size,
            in_channels=in_channels,
        )


class BeitEncoder(PlainTransformerEncoder):
    """timm's Beit, stopped after the patch embedding."""

    family = (Beit,)
    no_decay = no_decay_as_run = ("cls_token", "pos_embed")

    def encode(self, tokens: Tokens) -> Features:
        """Add the class token, run the blocks under the shared bias, and the final norm."""
        beit = self.backbone
        row = torch.cat((beit.cls_token.expand(tokens.shape[0], -1, -1), tokens.flatten(1, 2)), dim=1)
        if beit.pos_embed is not None:
            row = row + beit.pos_embed
        row = beit.pos_drop(row)
        bias = beit.rel_pos_bias() if beit.rel_pos_bias is not None else None
        for block in beit.blocks:
            row = block(row, shared_rel_pos_bias=bias)
        return self.to_map(beit.norm(row))
