"""What the pages say: every link, word, recipe and setting exists, and all that the code says of itself is as it says it."""

import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from documentation.pages import (
    DOCS,
    LANGUAGES,
    ROOT,
    Command,
    anchors,
    blocks,
    inline_code,
    links,
    pages,
    read,
    simmim_commands,
)
from simmim.cli.app import app
from simmim.config import RecipeError, load, merge, one_of, read_overrides, read_yaml, recipe_names
from simmim.tasks.catalogue import TASKS, explain, list_recipes, resolve
from simmim.tasks.studies import list_studies, read_study

PAGES = [*pages(), ROOT / "README.md"]
VERBS = {name for name in app if not name.startswith("-")}
TRAINING = {
    "pretrain": "pretrain",
    "finetune": "finetune",
    "tokenizer": "tokenizer",
    "show": None,
    "ablate": "pretrain",
}
QUESTIONS = 25


def _built() -> ModuleType:
    spec = importlib.util.spec_from_file_location("build_docs", DOCS / "build.py")
    assert spec is not None
    assert spec.loader is not None
    build = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(build)
    return build


def _by_name(page: Path) -> str:
    return page.name


def test_what_is_made_from_the_code_is_what_the_code_says() -> None:
    build = _built()
    assert read(build.PAGE) == build.settings_page(), "run make docs"
    assert read(build.RECIPES) == build.recipes_page(), "run make docs"


@pytest.mark.parametrize("page", PAGES, ids=_by_name)
def test_every_link_and_picture_is_there(page: Path) -> None:
    missing: list[str] = []
    for link in links(page):
        if re.match(r"https?://", link):
            assert page.name == "README.md", f"{page.name} points out of the site: {link}"
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path) if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            missing.append(link)
        if page.parent == DOCS:
            assert DOCS in target.resolve().parents or target.resolve() == DOCS, f"{link} is not part of the site"
    assert missing == []


def test_every_page_and_picture_is_reached() -> None:
    nav = (ROOT / "zensical.toml").read_text(encoding="utf-8")
    assert {page.name for page in pages()} == set(re.findall(r'"(\w+\.md)"', nav))
    shown = {Path(link).name for page in PAGES for link in [*links(page), *links(ROOT / "LOG.md")]}
    assert {path.name for path in (DOCS / "pictures").iterdir()} <= shown


@pytest.mark.parametrize("page", pages(), ids=_by_name)
def test_every_block_says_its_language(page: Path) -> None:
    assert [block.place for block in blocks(page) if block.language not in LANGUAGES] == []


@pytest.mark.parametrize("page", PAGES, ids=_by_name)
def test_every_verb_flag_recipe_and_setting_of_a_command_exists(page: Path) -> None:
    for command in simmim_commands(page, "bash", "console"):
        _check(command)


def _check(command: Command) -> None:
    verb, *rest = [word for word in command.words[1:] if word != "..."]
    if verb == "--version":
        return
    assert verb in VERBS, f"{command.place}: simmim {verb}"
    parsed = app.parse_args(
        [verb, *rest], exit_on_error=False, print_error=False
    )  # flags, and how many words there are
    assert parsed is not None
    if verb not in TRAINING:
        return
    words = [word for word in rest if re.match(r"\w+(\.\w+)*=", word)]
    named = [word for word in rest[:2] if "=" not in word and not word.startswith("-")]
    recipe = next((word for word in named if word in recipe_names()), None)
    own = re.findall(r"(\w+)\.kind=\w+:", " ".join(words))  # parts of one's own are looked for where they are run
    words = [word for word in words if not word.startswith(tuple(f"{part}." for part in own))]
    if recipe is None and verb == "pretrain":
        assert named[0] == "my.yaml", f"{command.place}: there is no recipe {named[0]}"
    if verb == "ablate":
        assert Path(named[0]).stem in {study.name for study in list_studies()} | {"my_study"}
    elif recipe is not None or verb != "pretrain":
        default = {"finetune": "finetune", "tokenizer": "tokenizer"}.get(verb)
        resolve(recipe or default or "tiny", words, task=TRAINING[verb], extra={"data.source": "x"})


def _settings_named(page: Path) -> Iterator[str]:
    """Words of the running text that look like a setting: path=value, or a dotted path that begins with a block."""
    blocks_of = {one.path.split(".")[0] for task in TASKS for one in explain(task=task) if "." in one.path}
    for code in inline_code(page):
        if "(" in code or code == "path=value":  # Python, and the form itself
            continue
        yield from re.findall(r"(?:^| )([a-z_]+(?:\.[a-z_]+)*)=", code)
        is_file = code.endswith((".safetensors", ".onnx"))
        if re.fullmatch(r"[a-z_]+(\.[a-z_]+)+", code) and code.split(".")[0] in blocks_of and not is_file:
            yield code


@pytest.mark.parametrize("page", PAGES, ids=_by_name)
def test_every_setting_that_the_text_names_exists(page: Path) -> None:
    known = {one.path for task in TASKS for one in explain(task=task)}
    known |= {f"{path}.kind" for path in ("masking", "encoder", "head", "target", "data.view")} | {"kind", "task"}
    allowed = known | {path.rsplit(".", 1)[-1] for path in known}  # under a heading that says the block
    assert [name for name in _settings_named(page) if name not in allowed] == []


@pytest.mark.parametrize("page", PAGES, ids=_by_name)
def test_every_value_that_the_text_gives_a_setting_is_allowed(page: Path) -> None:
    wrong: list[str] = []
    for code in inline_code(page):
        for word in re.findall(r"""(?:^| )([a-z_]+\.[a-z_.]+=(?:"[^"]*"|\[[^\]]*\]|\S+))""", code):
            if ":" not in word and not any(_takes(task, word.replace('"', "")) for task in TASKS):
                wrong.append(word)
    assert wrong == []


def _takes(task: str, word: str) -> bool:
    """Whether a task has such a setting, and allows the value; of a part, in any of its kinds."""
    path = word.split("=")[0]
    block = path.split(".")[0]
    field = TASKS[task].model_fields.get(block)
    choice = None if field is None else one_of(field)
    kinds = [None] if choice is None else list(choice.kinds)
    needed = {"clusters": {"centres": "x"}, "tokens": {"weights": "x"}, "timm": {"name": "x"}}
    if path.endswith(".kind"):
        kinds = [word.partition("=")[2]]
    for kind in kinds:
        chosen: dict[str, Any] = {} if kind is None else {"kind": kind, **needed.get(kind, {})}
        tree = {"data": {"image_size": "64 px"}} if task != "finetune" else {}
        try:
            tree = merge(tree, {block: {**tree.get(block, {}), **chosen}} if choice else {}, TASKS[task])
            load(TASKS[task], merge(tree, read_overrides([word]), TASKS[task]))
        except RecipeError:
            continue
        return True
    return False


@pytest.mark.parametrize("page", PAGES, ids=_by_name)
def test_every_verb_that_the_text_names_exists(page: Path) -> None:
    named = {found for code in inline_code(page) for found in re.findall(r"^simmim ([a-z]+)", code)}
    assert named <= VERBS


def test_every_verb_is_shown_somewhere() -> None:
    shown = {command.verb for page in pages() for command in simmim_commands(page, "bash", "console")}
    named = {found for page in pages() for code in inline_code(page) for found in re.findall(r"^simmim ([a-z]+)", code)}
    assert VERBS - shown - named == set()


def test_the_study_that_is_shown_is_one(tmp_path: Path) -> None:
    (text,) = [block.text for block in blocks(DOCS / "studies.md") if block.language == "yaml"]
    (tmp_path / "my_study.yaml").write_text(text, encoding="utf-8")
    assert read_study(str(tmp_path / "my_study.yaml")).title == read_yaml(text)["title"]


def test_every_question_is_answered() -> None:
    found = re.findall(
        r"^### (\d+)\. ([^\n]+)\n\n(.+?)(?=\n#|\Z)", read(DOCS / "questions.md"), flags=re.MULTILINE | re.DOTALL
    )
    assert [int(number) for number, _, _ in found] == list(range(1, QUESTIONS + 1))
    assert all(title.rstrip().endswith(("?", ".")) for _, title, _ in found)
    assert min(len(answer.split()) for _, _, answer in found) >= 20


def test_the_recipes_are_all_on_their_page() -> None:
    page = read(DOCS / "recipes.md")
    assert [one.name for one in list_recipes() if f"| `{one.name}` |" not in page] == []
