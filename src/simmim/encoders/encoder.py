"""The contract of an encoder: a timm backbone that can be stopped between its patch embedding and the rest."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import timm
import torch
from pydantic import Field
from torch import Tensor, nn

from simmim.config import Part, nearest
from simmim.encoders.checkpointing import Checkpointing, checkpoint_blocks
from simmim.encoders.layers import blocks_of
from simmim.shapes import Cells, Features, Images, Mask, Tokens
from simmim.units import Size


@dataclass(frozen=True)
class Architecture:
    """What timm needs to make a backbone again: a model name and its arguments."""

    name: str
    arguments: Mapping[str, Any]

    def create(self, **more: Any) -> nn.Module:
        """Make the backbone with random weights; `more` goes to timm and wins over the stored arguments.

        Raises:
            ValueError: where timm has no such model, or refuses an argument.
        """
        if not timm.is_model(self.name):
            raise ValueError(f"timm has no model {self.name!r}{nearest(self.name, timm.list_models())}")
        arguments = {**self.arguments, **more}
        try:
            return timm.create_model(self.name, pretrained=False, **arguments)
        except (TypeError, AssertionError) as error:
            raise ValueError(f"timm cannot build {self.name} with {arguments}: {error}") from error


class Looks(NamedTuple):
    """Who sees whom in one pass through the blocks, where masks decide of it."""

    seen: Any
    """What the first `visible_blocks` blocks see, a named tuple of tensors of the encoder's own; None where they see all."""
    wanted: Tensor | None
    """Numbers of what is looked at behind the last block, counted through all images (wanted); None for all."""


class Encoder(nn.Module, ABC):
    """A backbone in two halves: `embed` makes tokens of images, `encode` makes a feature map of tokens.

    Run one after the other they give exactly what timm's `forward_features` gives.
    """

    no_decay: ClassVar[tuple[str, ...]] = ()
    """Words in the names of parameters that are not decayed, beside vectors and biases (official file: optimizer.py)."""
    no_decay_as_run: ClassVar[tuple[str, ...]] = ()
    """The same as official pre-training really ran: its prefix "encoder." kept some of the words from matching."""

    family: ClassVar[tuple[type[nn.Module], ...]] = (nn.Module,)
    """The timm classes that this adapter knows how to split."""

    patch_size: int
    """Pixels a side of one token (the model patch)."""
    stride: int
    """Pixels a side of one cell of the feature map."""
    embed_dim: int
    """Channels of a token."""
    num_features: int
    """Channels of the feature map."""
    visible_blocks: int = 0
    """How many of the first blocks see visible tokens only in pre-training; 0 for the published method."""

    def __init__(self, architecture: Architecture, *, image_size: Size, in_channels: int) -> None:
        super().__init__()
        self.architecture = architecture
        self.image_size = image_size
        self.in_channels = in_channels
        self.backbone: Any = architecture.create()
        if not isinstance(self.backbone, self.family):
            raise ValueError(
                f"{architecture.name} is a {type(self.backbone).__name__}, and this encoder takes a "
                f"{' or '.join(each.__name__ for each in self.family)}; see encoder.kind, or take encoder.kind=timm"
            )

    @abstractmethod
    def embed(self, images: Images) -> Tokens:
        """The patch embeddings of the images, as a grid."""

    @abstractmethod
    def encode(self, tokens: Tokens) -> Features:
        """The feature map of a grid of tokens."""

    def arrange(self, hidden: Mask, wanted: Cells | None = None) -> "Looks | None":
        """What the masks alone decide of `encode_hidden`; None where they decide nothing.

        Tensors on the device of the masks, with sizes that depend on what is hidden, so it stays outside of what is compiled;
        from masks on the CPU it is made without waiting for a GPU.

        Args:
            hidden: true where a token is hidden (batch, grid_h, grid_w).
            wanted: true for the cells of the feature map that are looked at (batch, map_h, map_w); what an encoder leaves in
                the others is up to it. All of them if not given.
        """
        seen = self.arrange_seen(hidden) if self.visible_blocks else None
        numbers = None if wanted is None or bool(wanted.all()) else self.arrange_wanted(wanted)
        return None if seen is None and numbers is None else Looks(seen, numbers)

    def arrange_seen(self, hidden: Mask) -> Any:
        """Which tokens the first `visible_blocks` blocks see, and where they lie; asked only where there are such blocks."""

    def arrange_wanted(self, wanted: Cells) -> Tensor | None:
        """The numbers that the last block takes for the cells that are wanted; None where it computes all of them."""

    def encode_hidden(self, tokens: Tokens, hidden: Mask, looks: "Looks | None" = None) -> Features:
        """The feature map of tokens some of which are hidden; mask tokens already stand in their places.

        The published method makes no difference between the two, and neither do encoders without `visible_blocks`.

        Args:
            tokens: as `encode` takes them.
            hidden: true where a token is hidden (batch, grid_h, grid_w).
            looks: what `arrange` says of these masks; asked here if not given.
        """
        return self.encode(tokens)

    def see_visible_only(self, blocks: int) -> None:
        """Let so many of the first blocks see visible tokens only.

        Raises:
            ValueError: where no block would be left to see the hidden ones.
        """
        stages = [stage.blocks for stage in getattr(self.backbone, "layers", ())] or [self.backbone.blocks]
        total = sum(len(stage) for stage in stages)
        if blocks >= total:
            raise ValueError(
                f"encoder.visible_blocks={blocks}, and {self.architecture.name} has {total} blocks, of which at least one "
                f"must see the hidden tokens; the most is {total - 1}"
            )
        self.visible_blocks = blocks

    def check_visible_only(self) -> None:
        """Refuse blocks that see visible tokens only where the encoder cannot have them; asked before pre-training."""

    def checkpoint_blocks(self, how: Checkpointing = "blocks") -> None:
        """Compute blocks again in the backward pass, as a whole or what is cheap of them; see `checkpointing.py`."""
        checkpoint_blocks(self.backbone, how)

    @property
    def blocks(self) -> list[nn.Module]:
        """The blocks from first to last, those of all stages in one row; none where they are not known."""
        return blocks_of(self.backbone)

    def pyramid(self, images: Images) -> list[Features]:
        """Feature maps from fine to coarse, for dense tasks; up to four where the backbone has blocks of one size."""
        maps: list[torch.Tensor] = self.backbone.forward_intermediates(
            images, indices=self._pyramid_indices(), intermediates_only=True
        )
        return maps

    def _pyramid_indices(self) -> list[int] | None:
        return None

    def forward(self, images: Images) -> Features:
        """The feature map of whole images, nothing hidden."""
        return self.encode(self.embed(images))

    def check_size(self, images: Images) -> None:
        """Refuse images of another size than the encoder was built for."""
        given = (images.shape[1], *images.shape[2:])
        built = (self.in_channels, *self.image_size)
        if given != built:
            raise ValueError(
                f"images have {given[0]} channels of {given[1]}x{given[2]} px, this encoder was built for "
                f"{built[0]} channels of {built[1]}x{built[2]} px"
            )


class EncoderConfig(Part, frozen=True):
    """What the settings of every encoder have in common."""

    name: str
    """timm model whose shape is taken; the weights start at random."""
    drop_path: float = Field(default=0.0, ge=0, lt=1)
    """Stochastic depth: the chance that a residual branch is skipped, rising to this value at the last block."""

    def architecture(self, *, image_size: Size, in_channels: int) -> Architecture:
        """The backbone for images of this size."""
        arguments = {
            "img_size": image_size,
            "in_chans": in_channels,
            "num_classes": 0,
            "drop_path_rate": self.drop_path,
            **self.shape(),
        }
        return Architecture(self.name, {name: value for name, value in arguments.items() if value is not None})

    def shape(self) -> dict[str, Any]:
        """The family's own arguments for timm; None leaves the model's own value."""
        return {}

    def build(self, *, image_size: Size, in_channels: int) -> Encoder:
        """Make the encoder with random weights.

        Raises:
            ValueError: where the image size does not fit, with the arithmetic and the nearest that fits.
        """
        raise TypeError(f"{type(self).__name__} does not say how it is built")
