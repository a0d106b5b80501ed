"""Swin and SwinV2: hierarchical transformers with shifted windows (timm's SwinTransformer and SwinTransformerV2)."""

from typing import Any, Literal, NamedTuple

import torch
from pydantic import Field
from timm.models.swin_transformer import SwinTransformer
from timm.models.swin_transformer_v2 import SwinTransformerV2
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from simmim.encoders.encoder import Architecture, Encoder, EncoderConfig, Looks
from simmim.encoders.giants import GIANTS
from simmim.encoders.windows import Groups, Windows, merge, move, nested_coordinates, pick, reorder, take_groups
from simmim.shapes import Cells, Features, Images, Mask, Tokens
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
    visible_blocks: int = Field(default=0, ge=0)
    """Blocks, counted through the stages, that see visible tokens only in pre-training: faster, and no longer the published
    method, which is 0. At least one block must be left to see the hidden ones."""

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
        encoder = SwinEncoder(
            self.architecture(image_size=image_size, in_channels=in_channels),
            image_size=image_size,
            in_channels=in_channels,
        )
        encoder.see_visible_only(self.visible_blocks)
        return encoder


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

    def build(self, *, image_size: Size, in_channels: int) -> "SwinEncoder":
        """Make the encoder with random weights."""
        for setting in ("extra_norm_every", "sequential_stages"):
            if getattr(self, setting) is not None and self.name not in GIANTS:
                raise ValueError(
                    f"encoder.{setting} is a setting of {' and '.join(GIANTS)}; encoder.name={self.name} has none"
                )
        encoder = super().build(image_size=image_size, in_channels=in_channels)
        stages = len(encoder.backbone.layers)
        if (self.sequential_stages or 0) > stages:
            raise ValueError(f"encoder.sequential_stages={self.sequential_stages}, and {self.name} has {stages} stages")
        return encoder


class Seen(NamedTuple):
    """Which cells of the feature map the first blocks see, and how the tokens in them lie."""

    cells: Tensor
    """Their numbers, row by row (images, count)."""
    real: Tensor
    """False where a cell only fills up an image that has fewer than another (images, count)."""
    groups: dict[str, Groups]
    """By kind of block."""

    def tokens(self, each: int) -> tuple[Tensor, Tensor]:
        """Numbers of the tokens in the cells, `each` a cell, and whether they are real (images, count * each)."""
        numbers = self.cells[:, :, None] * each + torch.arange(each, device=self.cells.device)
        return numbers.flatten(1), self.real.repeat_interleave(each, dim=1)

    def fill(self, x: Tensor, token: Tensor, cells: Size, *, each: int) -> Tensor:
        """All tokens of the map: those that were seen in their places, and a token (1, 1, channels) in the others."""
        numbers, real = self.tokens(each)
        count = x.shape[1]
        x = torch.cat((x, token.to(x.dtype).expand(len(x), 1, -1)), dim=1)
        where = torch.where(real, torch.arange(count, device=x.device), count)
        index = numbers.new_full((len(x), cells[0] * cells[1] * each), count).scatter_(1, numbers, where)
        return pick(x, index)


class SwinEncoder(Encoder):
    """timm's Swin or SwinV2, stopped after the patch embedding and its norm."""

    family = (SwinTransformer, SwinTransformerV2)
    nested: Tensor
    """Token in each place of the order of `nested_coordinates` (1, tokens)."""
    nested_place: Tensor
    """The inverse (1, tokens)."""
    no_decay_as_run = ("mask_token", "absolute_pos_embed")
    no_decay = (*no_decay_as_run, "relative_position_bias_table", "cpb_mlp", "logit_scale")

    def __init__(self, architecture: Architecture, *, image_size: Size, in_channels: int) -> None:
        super().__init__(architecture, image_size=image_size, in_channels=in_channels)
        self.patch_size = int(self.backbone.patch_embed.patch_size[0])
        self.stride = self.patch_size * 2 ** (len(self.backbone.layers) - 1)
        check_multiple(image_size, self.stride, "the encoder's stride")
        self.embed_dim = int(self.backbone.embed_dim)
        self.num_features = int(self.backbone.num_features)
        self.cells: Size = (image_size[0] // self.stride, image_size[1] // self.stride)
        self._arrange()

    def _arrange(self) -> None:
        """Find the windows of every kind of block, once."""
        last, cells = len(self.backbone.layers) - 1, self.cells
        nested = nested_coordinates(cells, doublings=last)
        order = nested[:, 0] * (cells[1] << last) + nested[:, 1]
        self._nested_order = order  # no buffer: `arrange` works on the CPU
        self.register_buffer("nested", order[None], persistent=False)
        self.register_buffer("nested_place", order.argsort()[None], persistent=False)
        self.windows = nn.ModuleDict()
        for stage, layer in enumerate(self.backbone.layers):
            finer = last - stage
            for block in layer.blocks:
                take_groups(block)
                self.windows[_kind_of(stage, block)] = Windows(
                    (cells[0] << finer, cells[1] << finer),
                    cells=cells,
                    window=block.window_size,
                    shift=block.shift_size,
                )
        kinds: Any = self.windows.values()
        self._in_groups = all(kind.fits for kind in kinds)

    def check_visible_only(self) -> None:
        """Refuse blocks that see visible tokens only where windows do not fill the map.

        Raises:
            ValueError: with the nearest window that does.
        """
        all_windows: Any = self.windows.values()
        for windows in all_windows:
            if self.visible_blocks and not windows.fits:
                rows, columns = windows.map_size
                raise ValueError(
                    f"encoder.visible_blocks={self.visible_blocks} takes windows that fill the map, and those of "
                    f"{windows.window[0]}x{windows.window[1]} do not fill one of {rows}x{columns} tokens; take "
                    f"encoder.window={self._filling_window(max(windows.window))}, or encoder.visible_blocks=0"
                )

    def _filling_window(self, window: int) -> int:
        """The nearest window that fills the maps of all stages; one larger than a map is shrunk to it."""
        finest = [side // self.patch_size for side in self.image_size]
        sides = [side >> stage for side in finest for stage in range(len(self.backbone.layers))]
        filling = [size for size in range(1, max(sides) + 1) if all(side <= size or side % size == 0 for side in sides)]
        return min(filling, key=lambda size: (abs(size - window), -size))

    def embed(self, images: Images) -> Tokens:
        """The normalised patch embeddings."""
        self.check_size(images)
        return self.backbone.patch_embed(images)

    def encode(self, tokens: Tokens) -> Features:
        """Run the stages and the final norm; the map leaves with channels first.

        The blocks are timm's, and their tokens move as `windows.py` says; the result is timm's but for rounding.
        """
        if not self._in_groups:  # windows that must be filled up
            return self.backbone.norm(self.backbone.layers(tokens)).permute(0, 3, 1, 2)
        return self._run_stages(self._nest(tokens))

    def arrange_wanted(self, wanted: Cells) -> Tensor | None:
        """Their numbers, row by row."""
        return wanted.flatten().nonzero()[:, 0] if self._in_groups else None

    def arrange_seen(self, hidden: Mask) -> Seen:
        """Which cells the first `visible_blocks` blocks see, and the groups of their tokens."""
        flat, count = hidden.flatten(1).cpu(), self.cells[0] * self.cells[1]
        whole = flat[:, self._nested_order].view(len(flat), count, -1).all(dim=2)
        most = max(int((~whole).sum(dim=1).max()), 1)
        cells = whole.int().argsort(dim=1, stable=True)[:, :most]
        seen = Seen(cells, ~whole.gather(1, cells), {})
        for stage, block in self._stage_and_block()[: self.visible_blocks]:
            kind = _kind_of(stage, block)
            if kind not in seen.groups:
                windows: Any = self.windows[kind]
                seen.groups[kind] = windows.of_seen(*seen.tokens(self._tokens_a_cell(stage)))
        there: Seen = tree_map_only(Tensor, lambda tensor: tensor.to(hidden.device), seen)
        return there

    def encode_hidden(self, tokens: Tokens, hidden: Mask, looks: Looks | None = None) -> Features:
        """The same, but that the first `visible_blocks` blocks see what is left of the image where nothing is hidden.

        What is left out are whole cells of the feature map; a cell that is hidden in part stays, with mask tokens in it.
        Behind those blocks the cells that are missing come back as the mask token, sent through the patch mergings alone.
        """
        looks = looks or self.arrange(hidden)
        if looks is None:
            return self.encode(tokens)
        if looks.seen is None:
            return self._run_stages(self._nest(tokens), looks)
        one = hidden.flatten().int().argmax(dim=0, keepdim=True)  # any hidden one: all hold the mask token
        return self._run_stages(self._nest(tokens), looks, tokens.flatten(0, 2).index_select(0, one)[None])

    def _nest(self, tokens: Tokens) -> Tensor:
        return reorder(tokens.flatten(1, 2), self.nested, self.nested_place)

    def _tokens_a_cell(self, stage: int) -> int:
        return 4 ** (len(self.backbone.layers) - 1 - stage)

    def _stage_and_block(self) -> list[tuple[int, Any]]:
        return [(stage, block) for stage, layer in enumerate(self.backbone.layers) for block in layer.blocks]

    def _run_stages(self, x: Tensor, looks: Looks | None = None, token: Tensor | None = None) -> Features:
        """All tokens, or first those that are seen, and then all with `token` (1, 1, channels) in the places of the others."""
        seen: Seen | None = looks.seen if looks else None
        wanted = looks.wanted if looks else None
        left = self.visible_blocks if seen else 0
        norm_first = not isinstance(self.backbone, SwinTransformerV2)
        if seen:
            x = pick(x, seen.tokens(self._tokens_a_cell(0))[0])
        for stage, layer in enumerate(self.backbone.layers):
            if stage:
                x = merge(layer.downsample, x, norm_first=norm_first)
                if seen and token is not None:
                    token = merge(layer.downsample, token.expand(1, 4, -1), norm_first=norm_first)
            now: Groups | None = None
            known = seen.groups if seen else {}
            for block in layer.blocks:
                if left == 0 and seen and token is not None:
                    x = seen.fill(move(x, of=now, to=None), token, self.cells, each=self._tokens_a_cell(stage))
                    seen, now, known = None, None, {}
                kind, left = _kind_of(stage, block), left - 1
                if kind not in known:
                    windows: Any = self.windows[kind]
                    known = {**known, kind: windows.of_all()}
                x = move(x, of=now, to=known[kind])
                is_last = block is self.backbone.layers[-1].blocks[-1]
                slots = _slots(wanted, known[kind]) if is_last and wanted is not None else None
                x, now = block(x, known[kind], wanted=slots), known[kind]
            x = move(x, of=now, to=None)
        normed: Tensor = self.backbone.norm(x)
        return normed.transpose(1, 2).reshape(len(normed), -1, *self.cells)


def _slots(cells: Tensor, groups: Groups) -> Tensor:
    """Where cells, counted through all images, lie in groups that hold every token of an image (cells)."""
    place = groups.place[0]
    return cells - cells % len(place) + place[cells % len(place)]


def _kind_of(stage: int, block: Any) -> str:
    """Blocks of the same word cut the map in the same way."""
    return "_".join(str(number) for number in (stage, *block.window_size, *block.shift_size))
