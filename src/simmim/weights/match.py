"""The match table: what of a file was taken, what was derived, what was left over, what is missing."""

from collections import Counter
from dataclasses import dataclass
from typing import Literal, NamedTuple

Fate = Literal["taken", "derived", "left over", "missing"]


class MatchRow(NamedTuple):
    """One tensor of the file, or one that the model lacks."""

    fate: Fate
    theirs: str
    """Its name in the file; several, joined by a plus, where one was made of them."""
    ours: str
    """Its name here."""
    note: str = ""
    """What was done to it."""


@dataclass(frozen=True)
class Match:
    """How the tensors of a file and those of the model met."""

    rows: tuple[MatchRow, ...]

    @property
    def share(self) -> float:
        """Tensors that found their place, of all that should have: those of the model, and those left over."""
        counts = Counter(row.fate for row in self.rows if row.ours or row.fate == "left over")
        found = counts["taken"] + counts["derived"]
        return found / max(found + counts["left over"] + counts["missing"], 1)

    @property
    def missing(self) -> tuple[str, ...]:
        """The tensors that the model has and the file does not, by our names."""
        return tuple(row.ours for row in self.rows if row.fate == "missing")

    def count(self, fate: Fate) -> int:
        """How many rows have this fate."""
        return sum(row.fate == fate for row in self.rows)

    def names(self, fate: Fate, most: int = 3) -> str:
        """A few of the names, for a person."""
        names = [row.ours if fate == "missing" else row.theirs.split(" + ")[0] for row in self.rows if row.fate == fate]
        more = f" and {len(names) - most} more" if len(names) > most else ""
        return ", ".join(names[:most]) + more
