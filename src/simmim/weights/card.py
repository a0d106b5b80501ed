"""The model card: what a folder of weights is, for people who have never heard of us."""

from collections.abc import Mapping, Sequence


def model_card(*, title: str, facts: Mapping[str, str], code: str, notes: Sequence[str], recipe: str) -> str:
    """A README.md with the facts as a table, how to load the weights, and the recipe they were trained by."""
    rows = "\n".join(f"| {name} | {value} |" for name, value in facts.items())
    said = "\n".join(f"- {note}" for note in notes)
    parts = [
        "---\ntags:\n- masked-image-modeling\n- simmim\n---",
        f"# {title}",
        "An image encoder pre-trained by masked image modeling (SimMIM, arXiv 2111.09886).",
        f"| fact | value |\n|---|---|\n{rows}",
        f"## Loading\n\n```python\n{code.strip()}\n```",
        *([f"## Notes\n\n{said}"] if said else []),
        *([f"## Recipe\n\n```yaml\n{recipe.strip()}\n```"] if recipe.strip() else []),
    ]
    return "\n\n".join(parts) + "\n"
