"""How a recipe and its overrides become one checked, frozen object.

A recipe is YAML with at most one level of `base:`; `path=value` words override it; the result is validated strictly, every
problem is reported at once, and nothing changes afterwards. `explain` reads the same field descriptions the code has.
"""

import difflib
import importlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias, TypeVar, cast

import yaml
from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import CoreSchema, core_schema

Tree: TypeAlias = dict[str, Any]
"""A recipe as plain data."""


class Settings(BaseModel, frozen=True, strict=True, extra="forbid"):
    """Settings that are checked once and never change: unknown keys and wrong types are refused."""

    model_config = ConfigDict(use_attribute_docstrings=True, protected_namespaces=())


class Part(Settings, frozen=True):
    """Settings of a part that is chosen by one word, its `kind`."""

    kind: str
    """Which part: one of the built-in words, or package.module:Class for a part of your own."""


_ALIKE = 0.65  # difflib's similarity from which a word counts as a slip of the pen
AnySettings = TypeVar("AnySettings", bound=Settings)


class RecipeError(ValueError):
    """A recipe that cannot be used; the message lists every problem, one a line."""


@dataclass(frozen=True)
class OneOf:
    """The visible union of the parts a field may hold; the first is implied where no `kind` is written.

    Used as `Annotated[Masking, OneOf((RandomMasking, ...))]`: readers and type checkers see the contract, pydantic the list.
    """

    choices: tuple[type[Part], ...]

    @property
    def kinds(self) -> dict[str, type[Part]]:
        """The classes by their word."""
        return {choice.model_fields["kind"].default: choice for choice in self.choices}

    @property
    def default(self) -> str:
        """The word that is implied."""
        return next(iter(self.kinds))

    def chosen(self, value: object) -> type[Part]:
        """The class that a block of settings names."""
        kind = self._kind(value)
        if kind != "own":
            return self.kinds.get(kind) or self.choices[0]
        try:
            return _own_class(cast(Tree, value)["kind"])
        except ValueError:  # it is named where the settings are checked; here the first one stands in for it
            return self.choices[0]

    def _kind(self, value: object) -> str:
        kind = cast(Tree, value).get("kind", self.default) if isinstance(value, dict) else getattr(value, "kind", None)
        if ":" in str(kind) or (isinstance(value, Part) and not isinstance(value, self.choices)):
            return "own"
        return str(kind)

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        schemas: dict[str, CoreSchema] = {kind: handler.generate_schema(part) for kind, part in self.kinds.items()}
        schemas["own"] = core_schema.no_info_plain_validator_function(_own_part)
        return core_schema.tagged_union_schema(schemas, self._kind)


def _own_class(kind: str) -> type[Part]:
    module_name, _, class_name = kind.partition(":")
    try:
        found = getattr(importlib.import_module(module_name), class_name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"kind {kind!r} cannot be imported: {error}") from error
    if not (isinstance(found, type) and issubclass(found, Part)):
        raise ValueError(f"kind {kind!r} is not a subclass of simmim.config.Part")
    return found


def _own_part(value: object) -> Part:
    if isinstance(value, Part):
        return value
    block = cast(Tree, value)
    return _own_class(block["kind"]).model_validate_json(json.dumps(block))


# ---------------------------------------------------------------------------------------------------------------- reading


class _Loader(yaml.SafeLoader):
    """YAML with the words of version 1.2: `1e-4` is a number, `no` and `12:30` are words."""

    yaml_implicit_resolvers = {}  # noqa: RUF012 - PyYAML's own class attribute, replaced, not shared


class _Dumper(yaml.SafeDumper):
    """Quotes the words that the loader would take for something else."""

    yaml_implicit_resolvers = {}  # noqa: RUF012 - as above


for _tag, _pattern, _first in (
    ("bool", r"true|false|True|False", "tfTF"),
    ("int", r"[-+]?[0-9]+", "-+0123456789"),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.inf|\.nan", "-+.0123456789"),
    ("null", r"~|null|Null|", ["~", "n", "N", ""]),
):
    for _side in (_Loader, _Dumper):
        _side.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), list(_first))
_Loader.add_constructor("tag:yaml.org,2002:int", lambda loader, node: int(node.value))


def read_yaml(text: str) -> Any:
    """The plain data of a YAML text."""
    loader = _Loader(text)
    try:
        return loader.get_single_data()
    finally:
        loader.dispose()


def write_yaml(settings: Settings) -> str:
    """The settings as YAML, complete: reading it gives the same object."""
    tree = to_tree(settings)
    return yaml.dump(tree, Dumper=_Dumper, sort_keys=False, default_flow_style=None, width=110, allow_unicode=True)


def to_tree(settings: Settings) -> Tree:
    """The settings as plain data, quantities in their written form."""
    return settings.model_dump(mode="json")


def recipe_names() -> list[str]:
    """The built-in recipes, sorted."""
    return sorted(item.name.removesuffix(".yaml") for item in _shipped().iterdir() if item.name.endswith(".yaml"))


def recipe_text(recipe: str | Path) -> str:
    """The text of a built-in recipe, or of a recipe file.

    The beginning of a built-in name will do, where it is that of one alone; else the nearest names are suggested.
    """
    path = Path(recipe)
    if path.suffix in (".yaml", ".yml") or path.is_file():
        if not path.is_file():
            raise RecipeError(f"there is no recipe file {str(path)!r}")
        return path.read_text(encoding="utf-8")
    return (_shipped() / f"{_whole_name(str(recipe))}.yaml").read_text(encoding="utf-8")


def _whole_name(begun: str) -> str:
    """The built-in recipe that is called so, or the only one whose name begins so."""
    names = recipe_names()
    alike = [begun] if begun in names else [name for name in names if begun and name.startswith(begun)]
    if len(alike) == 1:
        return alike[0]
    meant = f"; names that begin so: {', '.join(alike)}" if alike else nearest(begun, names)
    raise RecipeError(f"there is no recipe {begun!r}{meant}; built in: {', '.join(names)}; or give a .yaml file")


def _shipped() -> Any:
    return resources.files("simmim.recipes")


def read_recipe(recipe: str | Path, model_of: Callable[[Tree], type[Settings] | None] = lambda tree: None) -> Tree:
    """The plain data of a recipe, laid over its `base` if it names one.

    Args:
        recipe: the name of a built-in one, or a YAML file.
        model_of: the settings that a tree is for, by which a kind that is implied is known.
    """
    tree = _block(recipe)
    base_name = tree.pop("base", None)
    if base_name is None:
        return tree
    base = _block(base_name)
    if "base" in base:
        raise RecipeError(f"{recipe} is based on {base_name}, which has a base itself; one level is allowed")
    return merge(base, tree, model_of(base | tree))


def _block(recipe: str | Path) -> Tree:
    try:
        tree = read_yaml(recipe_text(recipe))
    except yaml.YAMLError as error:
        raise RecipeError(f"recipe {recipe} is not YAML: {error}") from error
    if not isinstance(tree, dict):
        raise RecipeError(f"recipe {recipe} holds {type(tree).__name__}, not settings by name")
    return cast(Tree, tree)


def read_overrides(words: Sequence[str]) -> Tree:
    """The tree that `path=value` words describe; a value is YAML, and may hold spaces inside brackets."""
    tree: Tree = {}
    for word in _joined(words):
        path, equals, text = word.partition("=")
        if not equals or not re.fullmatch(r"\w+(\.\w+)*", path):
            raise RecipeError(f"{word!r} is not a setting; write path=value, such as masking.ratio=0.5")
        *outer, last = path.split(".")
        block = tree
        for name in outer:
            inner = block.setdefault(name, {})
            if not isinstance(inner, dict):
                raise RecipeError(f"{path} cannot be set: {name} was given a value of its own in the same command")
            block = cast(Tree, inner)
        try:
            block[last] = read_yaml(text)
        except yaml.YAMLError as error:
            raise RecipeError(f"{path}={text}: the value is not YAML ({error})") from error
    return tree


def _joined(words: Sequence[str]) -> Iterator[str]:
    """Put together what a shell took apart at the spaces of a list: [96, and 160]."""
    pending = ""
    for word in words:
        pending = f"{pending} {word}" if pending else word
        if pending.count("[") <= pending.count("]"):
            yield pending
            pending = ""
    if pending:
        yield pending


def merge(base: Mapping[str, Any], over: Mapping[str, Any], model: type[Settings] | None = None) -> Tree:
    """Lay one tree over another. A block whose `kind` changes starts afresh, so no setting of the old kind stays behind."""
    merged: Tree = dict(base)
    for name, value in over.items():
        below = base.get(name)
        choice = one_of(model.model_fields[name]) if model and name in model.model_fields else None
        if not (isinstance(below, dict) and isinstance(value, dict)):
            merged[name] = value
            continue
        below, value = cast(Tree, below), cast(Tree, value)
        implied = choice.default if choice else None
        if "kind" in value and value["kind"] != below.get("kind", implied):
            merged[name] = value
        else:
            merged[name] = merge(below, value, _inner(model, name, value))
    return merged


def load(model: type[AnySettings], tree: Mapping[str, Any], *, source: str = "recipe") -> AnySettings:
    """Check a tree against a settings class.

    Raises:
        RecipeError: with every problem of the tree, one a line, and the nearest valid name of each unknown key.
    """
    try:
        return model.model_validate_json(json.dumps(tree))
    except ValidationError as error:
        problems = [_problem(model, tree, item) for item in error.errors()]
        count = "a problem" if len(problems) == 1 else f"{len(problems)} problems"
        raise RecipeError("\n  ".join([f"{source} has {count}:", *problems])) from None


# ----------------------------------------------------------------------------------------------------------- explanations


class Setting(NamedTuple):
    """One setting that a recipe may hold."""

    path: str
    field: FieldInfo
    choice: OneOf | None
    inner: type[Settings] | None


def settings_of(model: type[Settings], tree: Mapping[str, Any] | None = None, prefix: str = "") -> Iterator[Setting]:
    """Every setting below a class, blocks before their contents; parts as the tree chooses them, or by default."""
    tree = tree or {}
    for name, field in model.model_fields.items():
        inner = _inner(model, name, tree.get(name))
        yield Setting(prefix + name, field, one_of(field), inner)
        if inner is not None:
            block = tree.get(name)
            yield from settings_of(inner, cast(Tree, block) if isinstance(block, dict) else None, f"{prefix}{name}.")


def one_of(field: FieldInfo) -> OneOf | None:
    """The union of parts a field may hold, if it holds a part."""
    return next((item for item in field.metadata if isinstance(item, OneOf)), None)


def _inner(model: type[Settings] | None, name: str, value: object) -> type[Settings] | None:
    if model is None or name not in model.model_fields:
        return None
    field = model.model_fields[name]
    if choice := one_of(field):
        return choice.chosen(cast(Tree, value) if isinstance(value, dict) else {})
    return field.annotation if isinstance(field.annotation, type) and issubclass(field.annotation, Settings) else None


def nearest(word: str, allowed: Sequence[str]) -> str:
    """The end of a message that suggests what was meant: "; did you mean 'ratio'?", or nothing."""
    found = _alike(word, allowed)
    return f"; did you mean {found!r}?" if found else ""


def _alike(word: str, allowed: Sequence[str]) -> str | None:
    """The most similar word, or the first with the same letters in another order, which difflib does not see in a short one."""
    alike = difflib.get_close_matches(word, allowed, n=1, cutoff=_ALIKE)
    return next(iter((*alike, *(other for other in allowed if sorted(other) == sorted(word)))), None)


def _nearest_path(name: str, block: str, siblings: Sequence[str]) -> str:
    found = _alike(name, siblings)
    path = f"{block}.{found}" if found and block else found
    return f"; did you mean {path!r}?" if found else ""


def _nearest_elsewhere(name: str, known: Sequence[str]) -> str:
    """The nearest setting of another block, by its last word."""
    by_last_word = {path.split(".")[-1]: path for path in reversed(known)}
    found = _alike(name, list(by_last_word))
    return f"; did you mean {by_last_word[found]!r}?" if found else ""


def _problem(model: type[Settings], tree: Mapping[str, Any], item: Any) -> str:
    path, value = _written_path(tree, item["loc"])
    if item["type"] == "extra_forbidden":
        known = [setting.path for setting in settings_of(model, tree)]
        *outer, last = path.split(".")
        block = ".".join(outer)
        siblings = [name.split(".")[-1] for name in known if name.rpartition(".")[0] == block]
        hint = _nearest_path(last, block, siblings) or _nearest_elsewhere(last, known)
        return f"{path} = {value!r}: there is no such setting{hint or '; allowed here: ' + ', '.join(siblings)}"
    if item["type"] == "union_tag_invalid":
        setting = next(s for s in settings_of(model, tree) if s.path == path)
        kinds = list(setting.choice.kinds) if setting.choice else []
        kind = cast(Tree, value).get("kind") if isinstance(value, dict) else value
        return (
            f"{path}.kind = {kind!r}: allowed: {', '.join(kinds)}, or package.module:Class{nearest(str(kind), kinds)}"
        )
    if item["type"] == "missing":
        return f"{path} = {value!r}: has too few entries" if isinstance(value, list) else f"{path}: must be given"
    if item["type"] == "literal_error":
        allowed = re.findall(r"'([^']*)'", item["ctx"]["expected"])
        return f"{path} = {value!r}: allowed: {', '.join(allowed)}{nearest(str(value), allowed)}"
    message = str(item["msg"]).removeprefix("Value error, ")
    return f"{path} = {value!r}: {message[:1].lower()}{message[1:]}"


def _written_path(tree: Mapping[str, Any], location: Sequence[str | int]) -> tuple[str, object]:
    """The dotted path as it stands in the recipe (without pydantic's union tags), and the value there."""
    value: Any = tree
    names: list[str] = []
    for position, name in enumerate(location):
        if isinstance(value, dict) and name in value:
            value = cast(Tree, value)[str(name)]
        elif isinstance(value, list) and isinstance(name, int) and name < len(cast("list[Any]", value)):
            value = cast("list[Any]", value)[name]
        elif isinstance(value, dict) and position == len(location) - 1:
            value = None  # it is missing
        else:
            continue  # a tag of pydantic's, which the recipe does not hold
        names.append(str(name))
    return ".".join(names), cast(object, value)
