import sys
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field, ValidationError

from simmim.config import (
    OneOf,
    Part,
    RecipeError,
    Settings,
    load,
    merge,
    read_overrides,
    read_recipe,
    read_yaml,
    write_yaml,
)
from simmim.units import ImageSize, Pixels


class Sieve(Part, frozen=True):
    kind: Literal["sieve"] = "sieve"
    holes: int = Field(default=6, gt=0)
    ratio: float = Field(default=0.5, gt=0, lt=1)


class Net(Part, frozen=True):
    kind: Literal["net"] = "net"
    mesh: Pixels = 4
    holes: int = 2


class Kitchen(Settings, frozen=True):
    tool: Annotated[Any, OneOf((Sieve, Net))] = Sieve()
    size: ImageSize = (8, 8)
    name: str | None = None
    rate: float = 0.1
    count: int = 1
    loud: bool = False
    colour: Literal["red", "green"] = "red"


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch) -> type[Part]:
    """A part of the user's own, in a module of the user's own."""

    class Spoon(Part, frozen=True):
        depth: int = 3

    module = ModuleType("my_kitchen")
    module.Spoon, module.Fork = Spoon, dict  # pyright: ignore[reportAttributeAccessIssue]
    monkeypatch.setitem(sys.modules, "my_kitchen", module)
    return Spoon


# ------------------------------------------------------------------------------------------------------------------- YAML


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("2E3", 2000.0),
        (".5", 0.5),
        ("-1.5e+2", -150.0),
        ("12", 12),
        ("+3", 3),
        ("010", 10),
        ("08", 8),
        ("0", 0),
        ("no", "no"),
        ("yes", "yes"),
        ("on", "on"),
        ("off", "off"),
        ("y", "y"),
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("12:30", "12:30"),
        ("1_000", "1_000"),
        ("2024-01-31", "2024-01-31"),
        ("0x1F", "0x1F"),
        ("100 epochs", "100 epochs"),
        ("'1e-4'", "1e-4"),
        ("[96, 160]", [96, 160]),
        ("{a: no}", {"a": "no"}),
    ],
)
def test_yaml_has_the_words_of_version_1_2(text: str, value: object) -> None:
    found = read_yaml(text)
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    "name",
    ["1e-4", "1e5", "08", "010", "no", "null", "~", "", "12:30", "true", "-", "a: b", "#x", "0.5", "2024", ".5", "ü"],
)
def test_a_word_that_looks_like_something_else_is_written_so_that_it_stays_a_word(name: str) -> None:
    assert read_yaml(write_yaml(Kitchen(name=name)))["name"] == name


def test_settings_are_written_complete_and_read_as_the_same_object() -> None:
    settings = load(Kitchen, {"tool": {"kind": "net", "mesh": "16 px"}, "size": "96x160 px", "rate": 1e-6})
    assert load(Kitchen, read_yaml(write_yaml(settings))) == settings
    assert read_yaml(write_yaml(settings)).keys() == Kitchen.model_fields.keys()


# -------------------------------------------------------------------------------------------------------------- overrides


def test_overrides_become_a_tree() -> None:
    words = ["tool.holes=3", "tool.kind=net", "rate=1e-4", "name=no", "loud=true", "name2=a=b"]
    assert read_overrides(words) == {
        "tool": {"holes": 3, "kind": "net"},
        "rate": 1e-4,
        "name": "no",
        "loud": True,
        "name2": "a=b",
    }


def test_a_list_that_the_shell_took_apart_is_put_together() -> None:
    assert read_overrides(["size=[96,", "160]", "rate=0.5"]) == {"size": [96, 160], "rate": 0.5}
    assert read_overrides(["a=[[1,", "2],", "[3]]", "b=4"]) == {"a": [[1, 2], [3]], "b": 4}


@pytest.mark.parametrize("word", ["rate", "=3", "a b=3", "--rate=3", "a..b=3", ".a=3", "a.=3"])
def test_a_word_that_is_no_setting_is_refused(word: str) -> None:
    with pytest.raises(RecipeError, match="is not a setting; write path=value"):
        read_overrides([word])


def test_a_value_that_is_no_yaml_is_refused() -> None:
    with pytest.raises(RecipeError, match="value is not YAML"):
        read_overrides(["size={96"])


def test_a_setting_cannot_be_both_a_value_and_a_block() -> None:
    with pytest.raises(RecipeError, match=r"tool\.holes cannot be set"):
        read_overrides(["tool=net", "tool.holes=3"])


# ---------------------------------------------------------------------------------------------------------------- merging


def test_blocks_are_laid_over_each_other_and_nothing_is_changed() -> None:
    base, over = {"a": {"x": 1, "y": 2}, "b": [1, 2]}, {"a": {"y": 3}, "b": [9]}
    assert merge(base, over) == {"a": {"x": 1, "y": 3}, "b": [9]}
    assert (base, over) == ({"a": {"x": 1, "y": 2}, "b": [1, 2]}, {"a": {"y": 3}, "b": [9]})


def test_a_block_of_a_new_kind_starts_afresh() -> None:
    base = {"tool": {"kind": "sieve", "holes": 9, "ratio": 0.1}}
    assert merge(base, {"tool": {"kind": "net", "mesh": 8}}, Kitchen) == {"tool": {"kind": "net", "mesh": 8}}
    assert merge({"tool": {"holes": 9}}, {"tool": {"kind": "net"}}, Kitchen) == {"tool": {"kind": "net"}}


@pytest.mark.parametrize("below", [{"kind": "sieve", "holes": 9}, {"holes": 9}])
@pytest.mark.parametrize("above", [{"kind": "sieve", "ratio": 0.1}, {"ratio": 0.1}])
def test_a_block_of_the_same_kind_is_merged_even_where_the_kind_is_implied(below: Any, above: Any) -> None:
    tool = load(Kitchen, merge({"tool": below}, {"tool": above}, Kitchen)).tool
    assert tool == Sieve(holes=9, ratio=0.1)


# ---------------------------------------------------------------------------------------------------------------- recipes


def _recipe(folder: Path, name: str, text: str) -> Path:
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def test_a_recipe_is_laid_over_its_base(tmp_path: Path) -> None:
    base = _recipe(tmp_path, "base.yaml", "tool: {kind: sieve, holes: 9}\nrate: 0.2\n")
    recipe = _recipe(tmp_path, "recipe.yaml", f"base: {base}\ntool: {{ratio: 0.1}}\ncount: 3\n")
    assert read_recipe(recipe) == {"tool": {"kind": "sieve", "holes": 9, "ratio": 0.1}, "rate": 0.2, "count": 3}


def test_a_base_of_a_base_is_refused(tmp_path: Path) -> None:
    first = _recipe(tmp_path, "first.yaml", "rate: 0.2\n")
    second = _recipe(tmp_path, "second.yaml", f"base: {first}\n")
    third = _recipe(tmp_path, "third.yaml", f"base: {second}\n")
    with pytest.raises(RecipeError, match="one level is allowed"):
        read_recipe(third)


def test_a_kind_that_the_base_implies_is_the_same_kind(tmp_path: Path) -> None:
    from simmim.tasks.catalogue import resolve

    base = _recipe(tmp_path, "base.yaml", "masking: {ratio: 0.25}\ndata: {image_size: 64 px}\n")
    recipe = _recipe(tmp_path, "recipe.yaml", f"base: {base}\nmasking: {{kind: random, mask_patch: 16 px}}\n")
    masking: Any = resolve(recipe, task="pretrain").masking  # pyright: ignore
    assert (masking.ratio, masking.mask_patch) == (0.25, 16)


def test_the_nearest_recipe_is_suggested() -> None:
    with pytest.raises(RecipeError, match=r"there is no recipe 'tyni'; did you mean 'tiny'"):
        read_recipe("tyni")
    with pytest.raises(RecipeError, match=r"there is no recipe 'tini'; did you mean 'tiny'\?.*swin_base_192px_100ep"):
        read_recipe("tini")


def test_a_recipe_file_that_is_not_there_or_no_yaml_is_said(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="there is no recipe file"):
        read_recipe(tmp_path / "absent.yaml")
    with pytest.raises(RecipeError, match="is not YAML"):
        read_recipe(_recipe(tmp_path, "broken.yaml", "a: [1\n"))
    with pytest.raises(RecipeError, match="holds list, not settings by name"):
        read_recipe(_recipe(tmp_path, "list.yaml", "- a\n"))


# --------------------------------------------------------------------------------------------------------------- checking


def _problems(tree: dict[str, Any]) -> list[str]:
    with pytest.raises(RecipeError) as caught:
        load(Kitchen, tree)
    return str(caught.value).split("\n  ")[1:]


def test_every_problem_is_told_at_once_with_its_path_and_the_nearest_that_works() -> None:
    problems = _problems(
        {"tool": {"kind": "net", "mash": 3, "holes": "two"}, "rat": 0.5, "colour": "gren", "size": "8 feet", "mesh": 3}
    )
    assert len(problems) == 6
    said = "\n".join(sorted(problems))
    for part in (
        "tool.mash = 3: there is no such setting; did you mean 'tool.mesh'?",
        "tool.holes = 'two': input should be a valid integer",
        "rat = 0.5: there is no such setting; did you mean 'rate'?",
        "colour = 'gren': allowed: red, green; did you mean 'green'?",
        "size = '8 feet': '8 feet' has the unit 'feet'; this setting counts px",
        "mesh = 3: there is no such setting; did you mean 'tool.mesh'?",
    ):
        assert part in said


@pytest.mark.parametrize(
    ("tree", "path"),
    [
        ({"count": True}, "count = True"),
        ({"count": "1"}, "count = '1'"),
        ({"count": 1.5}, "count = 1.5"),
        ({"rate": True}, "rate = True"),
        ({"rate": "0.1"}, "rate = '0.1'"),
        ({"loud": 1}, "loud = 1"),
        ({"loud": "no"}, "loud = 'no'"),
        ({"name": 3}, "name = 3"),
        ({"tool": {"holes": True}}, "tool.holes = True"),
        ({"tool": {"ratio": 1}}, "tool.ratio = 1"),
        ({"tool": {"kind": "net", "mesh": True}}, "tool.mesh = True"),
    ],
)
def test_a_value_of_another_type_or_out_of_range_is_refused(tree: dict[str, Any], path: str) -> None:
    (problem,) = _problems(tree)
    assert problem.startswith(f"{path}: ")


def test_a_whole_number_may_stand_where_any_number_may() -> None:
    assert load(Kitchen, {"rate": 1}).rate == 1.0


def test_a_kind_that_is_not_there_is_told_with_those_that_are() -> None:
    (problem,) = _problems({"tool": {"kind": "sive", "holes": 3}})
    assert problem == "tool.kind = 'sive': allowed: sieve, net, or package.module:Class; did you mean 'sieve'?"


def test_an_object_of_another_kind_of_part_or_a_word_is_no_part() -> None:
    for tool in ("net", 3, ["net"]):
        (problem,) = _problems({"tool": tool})
        assert problem.startswith("tool")


def test_checked_settings_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Kitchen().rate = 0.2  # pyright: ignore[reportAttributeAccessIssue]


# ------------------------------------------------------------------------------------------------------- parts of one's own


def test_a_part_of_ones_own_is_chosen_by_its_place(own: type[Part]) -> None:
    settings = load(Kitchen, {"tool": {"kind": "my_kitchen:Spoon", "depth": 5}})
    assert settings.tool == own(kind="my_kitchen:Spoon", depth=5)  # pyright: ignore[reportCallIssue]
    assert load(Kitchen, read_yaml(write_yaml(settings))) == settings


def test_an_own_part_can_be_given_as_an_object(own: type[Part]) -> None:
    spoon = own(kind="my_kitchen:Spoon")
    assert Kitchen(tool=spoon).tool is spoon


def test_settings_of_an_own_part_are_merged(own: type[Part]) -> None:
    merged = merge({"tool": {"kind": "my_kitchen:Spoon", "depth": 5}}, {"tool": {"depth": 6}}, Kitchen)
    assert load(Kitchen, merged).tool.depth == 6


@pytest.mark.parametrize("kind", ["my_kitchen:Ladle", "no_such_kitchen:Spoon", "my_kitchen:Fork", ":Spoon"])
def test_an_own_part_that_is_not_there_is_one_problem_among_all(own: type[Part], kind: str) -> None:
    problems = _problems({"tool": {"kind": kind}, "cuont": 3})
    assert len(problems) == 2
    assert any(problem.startswith("tool") and kind in problem for problem in problems)
    assert "cuont = 3: there is no such setting; did you mean 'count'?" in problems


def test_a_problem_inside_an_own_part_has_its_full_path(own: type[Part]) -> None:
    (problem,) = _problems({"tool": {"kind": "my_kitchen:Spoon", "dept": 5}})
    assert problem == "tool.dept = 5: there is no such setting; did you mean 'tool.depth'?"
