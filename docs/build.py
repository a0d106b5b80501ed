"""`make docs`: write docs/settings.md from the descriptions that the settings themselves carry."""

from itertools import groupby
from pathlib import Path

from simmim.tasks.catalogue import TASKS, explain, list_recipes

PAGE = Path(__file__).parent / "settings.md"


def settings_page() -> str:
    """Every setting of every task, and the recipes."""
    lines = [
        "# Settings",
        "",
        "Made by `make docs` from the code. `simmim explain PATH` says the same on a terminal.",
        "",
    ]
    for task in TASKS:
        lines += [f"## {task}", ""]
        for _, block in groupby(explain(task=task), key=lambda one: one.path.split(".")[0]):
            lines += ["| setting | kind | default | allowed | what it means |", "|---|---|---|---|---|"]
            lines += [f"| `{s.path}` | {s.kind} | `{s.default}` | {s.allowed} | {s.description} |" for s in block]
            lines += [""]
    lines += ["## Recipes", "", "| recipe | task | what it is | what it should reach |", "|---|---|---|---|"]
    lines += [f"| `{r.name}` | {r.task} | {r.summary} | {r.notes.get('reaches', '')} |" for r in list_recipes()]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(settings_page(), encoding="utf-8")
    print(f"written: {PAGE}")
