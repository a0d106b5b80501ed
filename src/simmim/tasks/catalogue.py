"""The recipes and settings there are: list them, resolve them, explain them. Trains nothing."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias, cast, get_args

from annotated_types import BaseMetadata
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined, to_jsonable_python

from simmim.config import (
    RecipeError,
    Setting,
    Tree,
    load,
    merge,
    nearest,
    read_overrides,
    read_recipe,
    recipe_names,
    recipe_text,
    settings_of,
)
from simmim.tasks.finetune import FinetuneConfig
from simmim.tasks.pretrain import PretrainConfig

TaskConfig: TypeAlias = PretrainConfig | FinetuneConfig

TASKS: dict[str, type[PretrainConfig] | type[FinetuneConfig]] = {"pretrain": PretrainConfig, "finetune": FinetuneConfig}


class RecipeSummary(NamedTuple):
    """What the head of a recipe says."""

    name: str
    task: str
    summary: str
    notes: dict[str, str]
    """What it reproduces, what it should reach, the command."""


def list_recipes() -> list[RecipeSummary]:
    """The recipes that come with simmim."""
    return [_summary(name) for name in recipe_names()]


def _summary(name: str) -> RecipeSummary:
    comments = [line[1:].strip() for line in recipe_text(name).splitlines()]
    head = comments[: next((i for i, line in enumerate(recipe_text(name).splitlines()) if not line.startswith("#")), 0)]
    notes: dict[str, str] = {}
    summary: list[str] = []
    for line in head:
        word, colon, rest = line.partition(": ")
        if colon and word in ("Reproduces", "Reaches", "Command", "Unsure"):
            notes[word.lower()] = rest
        elif notes:
            notes[next(reversed(notes))] += f" {line}"
        else:
            summary.append(line)
    return RecipeSummary(name, str(read_recipe(name).get("task", "pretrain")), " ".join(summary), notes)


def resolve(
    recipe: str | Path,
    overrides: Sequence[str] = (),
    *,
    task: str | None = None,
    extra: Mapping[str, Any] | None = None,
) -> TaskConfig:
    """The checked settings of a recipe under its overrides.

    Args:
        recipe: the name of a built-in one, or a YAML file.
        overrides: words such as "masking.ratio=0.5".
        task: the task it must be for, if that matters.
        extra: settings that a command gives in another way, laid over all else.

    Raises:
        RecipeError: with every problem, one a line.
    """
    tree = read_recipe(recipe)
    found = tree.setdefault("task", task or "pretrain")
    if found not in TASKS:
        raise RecipeError(
            f"recipe {recipe} is for the task {found!r}; allowed: {', '.join(TASKS)}{nearest(found, list(TASKS))}"
        )
    if task is not None and found != task:
        raise RecipeError(f"recipe {recipe} is for {found}, not for {task}")
    model = TASKS[found]
    tree = merge(tree, read_overrides(overrides), model)
    return load(model, merge(tree, _nested(extra or {}), model), source=f"recipe {recipe}")


def _nested(settings: Mapping[str, Any]) -> Tree:
    """{"data.source": x} as {"data": {"source": x}}."""
    tree: Tree = {}
    for path, value in settings.items():
        *outer, last = path.split(".")
        block = tree
        for name in outer:
            block = block.setdefault(name, {})
        block[last] = value
    return tree


class Explained(NamedTuple):
    """One setting, in words."""

    path: str
    allowed: str
    default: str
    description: str


def explain(path: str, *, task: str = "pretrain") -> list[Explained]:
    """A setting, or every setting of a block; all kinds of a part are listed.

    Raises:
        RecipeError: where there is no such setting; the nearest is named.
    """
    settings = list(_all_settings(task))
    found = [setting for setting in settings if setting.path == path or setting.path.startswith(f"{path}.")]
    if not found and path:
        names = list(dict.fromkeys(setting.path for setting in settings))
        raise RecipeError(f"there is no setting {path!r}{nearest(path, names)}; blocks: {_blocks(names)}")
    return [_explained(setting) for setting in (found or settings)]


def _blocks(names: Sequence[str]) -> str:
    return ", ".join(dict.fromkeys(name.split(".")[0] for name in names))


def _all_settings(task: str) -> Iterator[Setting]:
    """The settings of a task, each part in every kind, named block[kind].setting where there are several."""
    for setting in settings_of(TASKS[task]):
        if setting.choice is None:
            inside = any(
                setting.path.startswith(f"{outer.path}.") for outer in settings_of(TASKS[task]) if outer.choice
            )
            if not inside:
                yield setting
            continue
        yield setting
        for part in setting.choice.choices:
            yield from settings_of(part, prefix=f"{setting.path}.")


def _explained(setting: Setting) -> Explained:
    return Explained(
        setting.path, _allowed(setting), _default(setting.field), " ".join((setting.field.description or "").split())
    )


def _allowed(setting: Setting) -> str:
    field = setting.field
    if setting.choice is not None:
        return "kind: " + ", ".join(setting.choice.kinds)
    words = get_args(field.annotation)
    if words and all(isinstance(word, str) for word in words):
        return ", ".join(words)
    limits = " ".join(
        f"{_SIGNS[name]} {getattr(item, name)}"
        for item in field.metadata
        if isinstance(item, BaseMetadata)
        for name in _SIGNS
        if hasattr(item, name)
    )
    name = getattr(field.annotation, "__name__", str(field.annotation)).replace("NoneType", "null")
    return f"{name} {limits}".strip()


_SIGNS = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}


def _default(field: FieldInfo) -> str:
    if field.default is PydanticUndefined:
        return "must be given"
    value = to_jsonable_python(field.default)
    if isinstance(value, dict):
        return str(cast(Tree, value).get("kind", ""))
    return "null" if value is None else str(value)
