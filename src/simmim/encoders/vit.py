"""The plain vision transformer with absolute positions (timm's VisionTransformer)."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal, NamedTuple, cast

import torch
import torch.nn.functional as F
from pydantic import Field
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from simmim.encoders.encoder import Architecture, Encoder, EncoderConfig, Looks
from simmim.encoders.wanted import WantedBlock, take_wanted
from simmim.shapes import Cells, Features, Images, Mask, Tokens
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
    visible_blocks: int = Field(default=0, ge=0)
    """Blocks at the beginning that see visible tokens only in pre-training: faster, and no longer the published method, which
    is 0. At least one block must be left to see the hidden ones."""

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
        encoder = ViTEncoder(
            self.architecture(image_size=image_size, in_channels=in_channels),
            image_size=image_size,
            in_channels=in_channels,
        )
        encoder.see_visible_only(self.visible_blocks)
        return encoder


def _attention_of_any_length(row: Tensor) -> AbstractContextManager[None]:
    """Compiled for rows of many lengths, PyTorch's fused attention on a CPU is taken for another layout than it has."""
    if torch.compiler.is_compiling() and row.device.type == "cpu":
        return cast("AbstractContextManager[None]", sdpa_kernel(SDPBackend.MATH))
    return nullcontext()


class SeenRow(NamedTuple):
    """Which tokens of a row some blocks see; images with fewer of them are filled up with hidden ones that nobody looks at."""

    numbers: Tensor
    """Places in the row (images, count)."""
    real: Tensor | None
    """False where one only fills up (images, count); None where all are real."""

    @classmethod
    def of(cls, hidden: Mask, *, prefix: int) -> "SeenRow":
        """The class token and its like, and what is not hidden."""
        flat = F.pad(hidden.flatten(1), (prefix, 0))
        counts = (~flat).sum(dim=1)
        most = int(counts.max())
        numbers = flat.int().argsort(dim=1, stable=True)[:, :most]
        return cls(numbers, None if bool((counts == most).all()) else ~flat.gather(1, numbers))

    def take(self, row: Tensor) -> Tensor:
        """The tokens that are seen (images, count, channels)."""
        return row.gather(1, self.numbers[..., None].expand(-1, -1, row.shape[2]))

    def put_back(self, kept: Tensor, row: Tensor) -> Tensor:
        """The whole row, with what became of those that were seen."""
        places = self.numbers[..., None].expand(-1, -1, row.shape[2])
        if self.real is not None:
            kept = torch.where(self.real[..., None], kept, row.gather(1, places))
        return row.scatter(1, places, kept.to(row.dtype))

    def attention_mask(self) -> Tensor | None:
        """-inf for what only fills up (images, 1, 1, count); None where there is none."""
        return (
            None
            if self.real is None
            else torch.zeros(self.real.shape, device=self.real.device).masked_fill(~self.real, float("-inf"))[
                :, None, None, :
            ]
        )


class PlainTransformerEncoder(Encoder):
    """What ViT and BEiT share: one row of tokens of one size, class token first."""

    def __init__(self, architecture: Architecture, *, image_size: Size, in_channels: int) -> None:
        super().__init__(architecture, image_size=image_size, in_channels=in_channels)
        self.patch_size = self.stride = int(self.backbone.patch_embed.patch_size[0])
        check_multiple(image_size, self.patch_size, "the model patch")
        self.embed_dim = self.num_features = int(self.backbone.num_features)
        self.grid: Size = tuple(self.backbone.patch_embed.grid_size)
        take_wanted(self.backbone.blocks[-1])

    def embed(self, images: Images) -> Tokens:
        """The patch embeddings, before class token and positions."""
        self.check_size(images)
        row: torch.Tensor = self.backbone.patch_embed(images)
        return row.reshape(row.shape[0], *self.grid, row.shape[2])

    def arrange_seen(self, hidden: Mask) -> SeenRow:
        """Which tokens of the row the first `visible_blocks` blocks see."""
        return SeenRow.of(hidden, prefix=self.backbone.num_prefix_tokens)

    def arrange_wanted(self, wanted: Cells) -> Tensor | None:
        """Their places in the rows of all images."""
        if not isinstance(self.backbone.blocks[-1], WantedBlock):
            return None
        return F.pad(wanted.flatten(1), (self.backbone.num_prefix_tokens, 0)).flatten().nonzero()[:, 0]

    def to_map(self, row: torch.Tensor) -> Features:
        """Drop the prefix tokens and lay the rest out as a map."""
        patches = row[:, self.backbone.num_prefix_tokens :].transpose(1, 2)
        return patches.reshape(*patches.shape[:2], *self.grid)

    def finish(self, row: torch.Tensor) -> Features:
        """The final norm, and the row as a map."""
        return self.to_map(self.backbone.norm(row))

    def _pyramid_indices(self) -> list[int]:
        depth = len(self.backbone.blocks)
        return sorted({max(depth * quarter // 4, 1) - 1 for quarter in (1, 2, 3, 4)})


class ViTEncoder(PlainTransformerEncoder):
    """timm's VisionTransformer, stopped after the patch embedding."""

    family = (VisionTransformer,)
    no_decay = no_decay_as_run = ("cls_token", "pos_embed", "reg_token")

    def encode(self, tokens: Tokens) -> Features:
        """Add class token and positions, run the blocks and the final norm."""
        return self.finish(self._run(self._begin(tokens), self.backbone.blocks))

    def encode_hidden(self, tokens: Tokens, hidden: Mask, looks: Looks | None = None) -> Features:
        """The same, but that the first `visible_blocks` blocks see class token and visible tokens only.

        Behind those blocks the hidden ones come back as they were left out: mask token and position.
        """
        seen, wanted = looks or self.arrange(hidden) or (None, None)
        row, blocks = self._begin(tokens), self.backbone.blocks
        if seen is not None:
            with _attention_of_any_length(row):
                kept = self._run(seen.take(row), blocks[: self.visible_blocks], attn_mask=seen.attention_mask())
            row, blocks = seen.put_back(kept, row), blocks[self.visible_blocks :]
        return self.finish(self._run(self._run(row, blocks[:-1]), blocks[-1:], wanted=wanted))

    def _begin(self, tokens: Tokens) -> Tensor:
        vit = self.backbone
        return vit.norm_pre(vit.patch_drop(vit._pos_embed(tokens.flatten(1, 2))))

    def _run(self, row: Tensor, blocks: Any, **more: Any) -> Tensor:
        for block in blocks:
            row = block(row, **{name: value for name, value in more.items() if value is not None})
        return row
