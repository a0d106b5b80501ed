"""The paper's own ViT: BEiT's, with one relative position bias shared by all blocks and no absolute positions."""

from typing import Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from timm.models.beit import Beit
from torch import Tensor

from simmim.encoders.attention import keep_no_scores
from simmim.encoders.encoder import Architecture, Looks
from simmim.encoders.vit import PlainTransformerConfig, PlainTransformerEncoder, SeenRow
from simmim.shapes import Features, Mask, Tokens
from simmim.units import Size


class BeitConfig(PlainTransformerConfig, frozen=True):
    """BEiT's ViT as the paper pre-trains it. (Official file: models/vision_transformer.py.)"""

    kind: Literal["beit"] = "beit"
    name: str = "beit_base_patch16_224"
    """timm model whose shape is taken; the weights start at random."""
    layer_scale: float = Field(default=0.1, gt=0)
    """Initial scale of every residual branch."""
    position_bias: Literal["shared", "per_block"] = "shared"
    """Whether all blocks have one bias for relative positions, as published, or each its own."""
    absolute_positions: bool = False
    """Add position embeddings as well; the published runs have none."""
    final_norm: bool = True
    """Norm the last map, as published; official models that pool the mean keep their norm for what is pooled."""

    def shape(self) -> dict[str, Any]:
        """The arguments of the family for timm."""
        return {
            **super().shape(),
            "init_values": self.layer_scale,
            "use_abs_pos_emb": self.absolute_positions,
            "use_rel_pos_bias": self.position_bias == "per_block",
            "use_shared_rel_pos_bias": self.position_bias == "shared",
            "global_pool": "token" if self.final_norm else "avg",
        }

    def build(self, *, image_size: Size, in_channels: int) -> "BeitEncoder":
        """Make the encoder with random weights."""
        if self.visible_blocks and self.position_bias == "per_block":
            raise ValueError(
                f"encoder.visible_blocks={self.visible_blocks} needs one bias for all blocks: encoder.position_bias=shared"
            )
        encoder = BeitEncoder(
            self.architecture(image_size=image_size, in_channels=in_channels),
            image_size=image_size,
            in_channels=in_channels,
        )
        encoder.see_visible_only(self.visible_blocks)
        encoder.backbone.fc_norm.requires_grad_(False)  # behind the pooling, where pre-training does not go
        return encoder


class BeitEncoder(PlainTransformerEncoder):
    """timm's Beit, stopped after the patch embedding."""

    family = (Beit,)
    no_decay = no_decay_as_run = ("cls_token", "pos_embed")

    def __init__(self, architecture: Architecture, *, image_size: Size, in_channels: int) -> None:
        super().__init__(architecture, image_size=image_size, in_channels=in_channels)
        for block in self.backbone.blocks:
            keep_no_scores(block.attn)

    def encode(self, tokens: Tokens) -> Features:
        """Add the class token, run the blocks under the shared bias, and the final norm."""
        return self.finish(self._run(self._begin(tokens), self.backbone.blocks, self._shared_bias()))

    def encode_hidden(self, tokens: Tokens, hidden: Mask, looks: Looks | None = None) -> Features:
        """The same, but that the first `visible_blocks` blocks see class token and visible tokens only.

        Behind those blocks the hidden ones come back as they were left out, as the mask token.
        """
        seen, wanted = looks or self.arrange(hidden) or (None, None)
        row, blocks = self._begin(tokens), self.backbone.blocks
        if seen is not None:
            kept = self._run(seen.take(row), blocks[: self.visible_blocks], self._bias_of(seen))
            row, blocks = seen.put_back(kept, row), blocks[self.visible_blocks :]
        return self.finish(self._run(row, blocks, self._shared_bias(), wanted))

    def _begin(self, tokens: Tokens) -> Tensor:
        beit = self.backbone
        row = torch.cat((beit.cls_token.expand(tokens.shape[0], -1, -1), tokens.flatten(1, 2)), dim=1)
        if beit.pos_embed is not None:
            row = row + beit.pos_embed
        return beit.pos_drop(row)

    def _run(self, row: Tensor, blocks: Any, bias: Tensor | None, wanted: Tensor | None = None) -> Tensor:
        for block in blocks[:-1]:
            row = block(row, shared_rel_pos_bias=bias)
        last = {} if wanted is None else {"wanted": wanted}
        return blocks[-1](row, shared_rel_pos_bias=bias, **last)

    def _shared_bias(self) -> Tensor | None:
        shared = self.backbone.rel_pos_bias
        return None if shared is None else shared()

    def _bias_of(self, seen: SeenRow) -> Tensor | None:
        """The shared bias between the tokens that are seen (images, heads, count, count)."""
        shared, mask = self.backbone.rel_pos_bias, seen.attention_mask()
        if shared is None:
            return mask
        pairs = shared.relative_position_index[seen.numbers[:, :, None], seen.numbers[:, None, :]]
        bias = F.embedding(pairs, shared.relative_position_bias_table).permute(0, 3, 1, 2)
        return bias.contiguous() if mask is None else bias + mask
