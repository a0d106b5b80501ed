"""A problem of a data set or a recipe, with its cure."""

from typing import NamedTuple

BREAKS, SPOILS, COSTS, NOTE = 4, 3, 2, 1
WORDS = {BREAKS: "breaks the run", SPOILS: "spoils the result", COSTS: "costs something", NOTE: "good to know"}


class Problem(NamedTuple):
    """One thing that should be changed, or known."""

    name: str
    """A word for programs, such as "damaged"."""
    weight: int
    """4 breaks the run, 3 spoils the result, 2 costs time or data, 1 is good to know."""
    said: str
    """What is wrong, with its numbers."""
    cure: str
    """A command or a setting."""
    examples: tuple[str, ...] = ()
    """Some of the files."""


def counted(count: int, what: str) -> str:
    """A number of things: 1 image, 2 images."""
    return f"{count} {what}{'' if count == 1 else 's'}"


def by_weight(problems: list[Problem]) -> list[Problem]:
    """The heaviest first; what was found earlier stays in front of its equals."""
    return sorted(problems, key=lambda problem: -problem.weight)
