"""The recipes and settings there are: list them, resolve them, explain them. Trains nothing."""

from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, TypeAlias, cast, get_args, get_origin

from annotated_types import BaseMetadata
from pydantic import TypeAdapter
from pydantic.fields import FieldInfo

from simmim.config import (
    OneOf,
    RecipeError,
    Settings,
    Tree,
    load,
    merge,
    nearest,
    one_of,
    read_overrides,
    read_recipe,
    recipe_names,
    recipe_text,
)
from simmim.tasks.finetune import FinetuneConfig
from simmim.tasks.pretrain import PretrainConfig
from simmim.tasks.tokenizer import TokenizerConfig
from simmim.units import Duration, LabelShare

TaskConfig: TypeAlias = PretrainConfig | FinetuneConfig | TokenizerConfig

TASKS: dict[str, type[PretrainConfig] | type[FinetuneConfig] | type[TokenizerConfig]] = {
    "pretrain": PretrainConfig,
    "finetune": FinetuneConfig,
    "tokenizer": TokenizerConfig,
}


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
    tree = read_recipe(recipe, lambda tree: TASKS.get(str(tree.get("task", task or "pretrain"))))
    found = str(tree.setdefault("task", task or "pretrain"))
    if found not in TASKS:
        raise RecipeError(
            f"recipe {recipe} is for the task {found!r}; allowed: {', '.join(TASKS)}{nearest(found, list(TASKS))}"
        )
    if task is not None and found != task:
        raise RecipeError(f"recipe {recipe} is for {found}, not for {task}")
    model = TASKS[found]
    tree = merge(tree, read_overrides(overrides), model)
    return load(model, merge(tree, nested(extra or {}), model), source=f"recipe {recipe}")


def nested(settings: Mapping[str, Any]) -> Tree:
    """{"data.source": x} as {"data": {"source": x}}."""
    tree: Tree = {}
    for path, value in settings.items():
        *outer, last = path.split(".")
        block = tree
        for name in outer:
            block = block.setdefault(name, {})
        block[last] = deepcopy(value)
    return tree


class Explained(NamedTuple):
    """One setting, in words."""

    path: str
    kind: str
    """The kind of part it belongs to, where the part has kinds."""
    allowed: str
    default: str
    description: str


def explain(path: str = "", *, task: str = "pretrain") -> list[Explained]:
    """A setting, every setting of a block, or every setting of a task; those of a part in all its kinds.

    Raises:
        RecipeError: where there is no such setting or task; the nearest is named.
    """
    if task not in TASKS:
        raise RecipeError(f"there is no task {task!r}; allowed: {', '.join(TASKS)}{nearest(task, list(TASKS))}")
    every = list(_explained(TASKS[task]))
    found = [one for one in every if not path or one.path == path or one.path.startswith(f"{path}.")]
    if not found:
        names = list(dict.fromkeys(one.path for one in every))
        blocks = ", ".join(dict.fromkeys(name.split(".")[0] for name in names))
        raise RecipeError(f"there is no setting {path!r}{nearest(path, names)}; blocks: {blocks}")
    return found


def _explained(model: type[Settings], *, prefix: str = "", kind: str = "") -> Iterator[Explained]:
    for name, field in model.model_fields.items():
        if name == "kind":
            continue
        path, choice = f"{prefix}{name}", one_of(field)
        yield Explained(
            path, kind, _allowed(field, choice), _default(field), " ".join((field.description or "").split())
        )
        if choice is not None:
            for word, part in choice.kinds.items():
                yield from _explained(part, prefix=f"{path}.", kind=word)
        elif isinstance(field.annotation, type) and issubclass(field.annotation, Settings):
            yield from _explained(field.annotation, prefix=f"{path}.", kind=kind)


_SIGNS = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}
_WORDS = {
    int: "whole number",
    float: "number",
    str: "text",
    bool: "true or false",
    type(None): "null",
    Duration: 'a time, "100 epochs" or "500 steps"',
    LabelShare: 'a share, "10 per class" or "1 %"',
}


def _allowed(field: FieldInfo, choice: OneOf | None) -> str:
    """The values a field takes, as a person would say it."""
    if choice is not None:
        return "kind: " + ", ".join(choice.kinds)
    limits = [
        f"{sign} {getattr(item, name):g}"
        for item in field.metadata
        for name, sign in _SIGNS.items()
        if isinstance(item, BaseMetadata) and hasattr(item, name)
    ]
    return " ".join([_type_words(field.annotation), *limits])


def _type_words(annotation: Any) -> str:
    if annotation in _WORDS:
        return _WORDS[annotation]
    origin: Any = get_origin(annotation)
    inner: tuple[Any, ...] = get_args(annotation)
    if origin is None:
        return "a block" if issubclass(annotation, Settings) else str(annotation.__name__)
    if origin is Literal:
        return ", ".join(map(str, inner))
    if origin is Annotated:
        return _type_words(inner[0])
    if origin in (tuple, dict):
        return {tuple: "list", dict: "settings by name"}[origin]
    return " or ".join(_type_words(each) for each in inner)


def _default(field: FieldInfo) -> str:
    """The default as a recipe would write it."""
    if field.is_required():
        return "must be given"
    typed: Any = Annotated[field.annotation, *field.metadata] if field.metadata else field.annotation
    value = TypeAdapter[Any](typed).dump_python(field.get_default(call_default_factory=True), mode="json")
    if isinstance(value, dict):
        return str(cast(Tree, value).get("kind", ""))
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
