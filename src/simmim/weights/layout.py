"""What the layouts of other programs have in common: pieces read from a file, under our names."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, cast

from torch import Tensor

from simmim.weights.match import MatchRow

Family = Literal["swin", "swinv2", "beit", "vit"]
"""The backbones that a passport is written for, by the `kind` of their encoder."""

_BUFFERS = ("relative_position_index", "relative_coords_table", "attn_mask")


@dataclass
class Pieces:
    """A file sorted by what each tensor is for; filled while it is read."""

    backbone: dict[str, Tensor] = field(default_factory=dict[str, Tensor])
    """By timm's names."""
    buffers: dict[str, Tensor] = field(default_factory=dict[str, Tensor])
    """What follows from the architecture, and tells of it."""
    mask_token: tuple[str, Tensor] | None = None
    decoder: dict[str, tuple[str, Tensor]] = field(default_factory=dict[str, tuple[str, Tensor]])
    rows: list[MatchRow] = field(default_factory=list[MatchRow])
    strangers: list[str] = field(default_factory=list[str])
    """Names that the layout does not know."""
    hints: dict[str, Any] = field(default_factory=dict[str, Any])
    """What the file says of itself beside its tensors."""

    def put(self, theirs: str, ours: str | None, tensor: Tensor) -> None:
        """Keep one tensor of the backbone under our name."""
        if ours is None:
            self.strangers.append(theirs)
        elif ours.endswith(_BUFFERS):
            self.buffers[ours] = tensor
            self.rows.append(MatchRow("derived", theirs, "", "computed anew"))
        else:
            self.backbone[ours] = tensor
            self.rows.append(MatchRow("taken", theirs, ours))

    def replace(self, names: Mapping[str, str] | list[str], ours: str, tensor: Tensor, note: str) -> None:
        """Put one tensor in the place of several that it was made of."""
        gone = set(names)
        sources = [row.theirs for row in self.rows if row.ours in gone]
        self.rows[:] = [row for row in self.rows if row.ours not in gone]
        for name in gone:
            self.backbone.pop(name, None)
        self.backbone[ours] = tensor
        self.rows.append(MatchRow("derived", " + ".join(sources), ours, note))


class Layout(ABC):
    """How one program names and stores what we have."""

    name: ClassVar[str]

    @abstractmethod
    def recognises(self, names: Mapping[str, Tensor]) -> bool:
        """Whether the tensors are in this layout."""

    @abstractmethod
    def read(self, tensors: Mapping[str, Tensor], settings: Mapping[str, Any]) -> Pieces:
        """Sort the tensors into their pieces, under our names."""


def said(settings: Mapping[str, Any], path: str) -> object:
    """A setting by its dotted path; None where it is not said."""
    value: Any = settings
    for word in path.split("."):
        if not isinstance(value, Mapping) or word not in value:
            return None
        value = cast("Mapping[str, Any]", value)[word]
    return value
