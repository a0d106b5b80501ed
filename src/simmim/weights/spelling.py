"""How another program spells the names that timm's backbones give their weights."""

import re
from collections.abc import Sequence


class Spelling:
    """Pairs of starts of names, theirs and ours; the first that fits is taken, in either direction.

    `{}` stands for a number. `{+}` on our side is that number plus one: timm merges patches at the start of a stage, the
    official code and its kin at the end of the one before.
    """

    def __init__(self, pairs: Sequence[tuple[str, str]]) -> None:
        self._there = [(_pattern(theirs), _template(ours), ours) for theirs, ours in pairs]
        self._back = [(_pattern(ours), _template(theirs), ours) for theirs, ours in pairs]

    def ours(self, name: str) -> str | None:
        """Our name of theirs; None where it is not known."""
        return _translate(name, self._there, +1)

    def theirs(self, name: str) -> str | None:
        """Their name of ours; None where it is not known."""
        return _translate(name, self._back, -1)


def _pattern(template: str) -> re.Pattern[str]:
    return re.compile(re.escape(template).replace(r"\{\}", r"(\d+)").replace(r"\{\+\}", r"(\d+)"))


def _template(template: str) -> str:
    return template.replace("{+}", "{}")


def _translate(name: str, rules: Sequence[tuple[re.Pattern[str], str, str]], step: int) -> str | None:
    for pattern, template, ours in rules:
        match = pattern.match(name)
        if match:
            numbers = [int(number) for number in match.groups()]
            if "{+}" in ours:
                numbers[0] += step
            return template.format(*numbers) + name[match.end() :]
    return None
