"""`make docs`: write what pages take from the code, and build the site of them into build/site.

python docs/build.py           docs/settings.md, and the table in docs/recipes.md
python docs/build.py --site    the same, and the site
"""

import subprocess
import sys
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

from simmim.tasks.catalogue import TASKS, Explained, explain, list_recipes

DOCS = Path(__file__).parent
PAGE = DOCS / "settings.md"
RECIPES = DOCS / "recipes.md"
BEGIN, END = "<!-- made by docs/build.py: recipes -->\n", "<!-- end -->"


def settings_page() -> str:
    """Every setting of every task, a table a block."""
    lines = [
        "# Settings",
        "",
        "Made by `make docs` from the code; `simmim explain PATH` says the same on a terminal. On a command line a setting",
        "is written `path=value`; in a recipe, dots become blocks. A setting with a *kind* belongs to that kind of part alone.",
        "",
    ]
    for task in TASKS:
        lines += [f"## {task}", ""]
        alone: list[Explained] = []
        blocks: list[str] = []
        for name, found in groupby(explain(task=task), key=lambda one: one.path.split(".")[0]):
            block = list(found)
            if len(block) == 1:
                alone += block
            else:
                head, *rows = block
                kinds = [_kinds(head)] if head.allowed.startswith("kind: ") else []
                blocks += [f"### {task}: {name}", "", head.description, "", *_table([*kinds, *rows]), ""]
        lines += [f"### {task}: one word", "", *_table(alone), "", *blocks]
    return "\n".join(lines).rstrip() + "\n"


def _kinds(part: Explained) -> Explained:
    kinds = part.allowed.removeprefix("kind: ")
    return part._replace(
        path=f"{part.path}.kind",
        allowed=kinds,
        description="Which part it is, or package.module:Class for one of yours.",
    )


def _table(settings: Sequence[Explained]) -> list[str]:
    """A line a setting; the column of kinds only where there are any."""
    names = ["setting", "kind", "default", "allowed", "what it means"]
    rows = [[f"`{s.path}`", s.kind, f"`{s.default or '{}'}`", s.allowed, s.description] for s in settings]
    if not any(s.kind for s in settings):
        names, *rows = ([row[0], *row[2:]] for row in (names, *rows))
    return [f"| {' | '.join(row)} |" for row in (names, ["---"] * len(names), *rows)]


def recipes_page() -> str:
    """The page of recipes, with the table between its two marks made anew."""
    text = RECIPES.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    lines = ["| recipe | task | what it is | should reach | unsure |", "|---|---|---|---|---|"]
    for one in list_recipes():
        reaches, unsure = one.notes.get("reaches", "nothing published"), one.notes.get("unsure", "")
        lines.append(f"| `{one.name}` | {one.task} | {one.summary} | {reaches} | {unsure} |")
    return before + BEGIN + "\n".join(["", *lines, "", ""]) + END + rest.split(END, 1)[1]


def build_site() -> int:
    """Build the site; a warning is an error."""
    program = Path(sys.executable).with_name("zensical")
    return subprocess.run([str(program), "build", "--clean", "--strict"], cwd=DOCS.parent, check=False).returncode


if __name__ == "__main__":
    PAGE.write_text(settings_page(), encoding="utf-8")
    RECIPES.write_text(recipes_page(), encoding="utf-8")
    print(f"written: {PAGE}, {RECIPES}")
    if "--site" in sys.argv[1:]:
        sys.exit(build_site())
