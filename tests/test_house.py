"""The house rules that a program can check (CONTRIBUTING.md). Reads the code as text; imports nothing of ours."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = sorted((ROOT / "src").rglob("*.py"))
MOST_LINES_A_FILE, MOST_LINES_A_FUNCTION, MOST_LINES_OF_THE_LOOP, MOST_PARAMETERS = 400, 60, 80, 8
FORBIDDEN_NAMES = {"utils", "util", "helpers", "helper", "common", "base", "misc", "manager"}
FORBIDDEN_MARKS = ("TO" + "DO", "FIX" + "ME", "NotImplemented" + "Error", "XX" + "X")


def _functions() -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield f"{path.relative_to(ROOT)}:{node.lineno} {node.name}", node


def _lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    assert node.end_lineno is not None
    return node.end_lineno - node.lineno + 1


def test_there_is_code_to_check() -> None:
    assert len(SOURCES) > 30


def test_no_file_is_longer_than_its_budget() -> None:
    lengths = {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8").count("\n") for path in SOURCES}
    assert {name: lines for name, lines in lengths.items() if lines > MOST_LINES_A_FILE} == {}


def test_no_function_is_longer_than_its_budget() -> None:
    assert [f"{name}: {_lines(node)}" for name, node in _functions() if _lines(node) > MOST_LINES_A_FUNCTION] == []


def test_the_loop_is_one_page() -> None:
    assert (ROOT / "src/simmim/engine/loop.py").read_text(encoding="utf-8").count("\n") <= MOST_LINES_OF_THE_LOOP


def test_no_function_has_more_parameters_than_its_budget() -> None:
    def count(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
        every = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
        return len([argument for argument in every if argument.arg not in ("self", "cls")])

    # The command line's functions are the flags a person has.
    found = [
        f"{name}: {count(node)}" for name, node in _functions() if count(node) > MOST_PARAMETERS and "/cli/" not in name
    ]
    assert found == []


def test_no_module_has_a_name_that_says_nothing() -> None:
    assert [str(path) for path in SOURCES if path.stem in FORBIDDEN_NAMES or path.parent.name in FORBIDDEN_NAMES] == []


@pytest.mark.parametrize("mark", FORBIDDEN_MARKS)
def test_nothing_is_left_unfinished(mark: str) -> None:
    assert [str(path) for path in SOURCES if mark in path.read_text(encoding="utf-8")] == []


def test_no_error_is_swallowed() -> None:
    silent = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ExceptHandler) and all(isinstance(step, ast.Pass) for step in node.body)
    ]
    assert silent == []


def test_pictures_and_pages_of_this_machine_stay_out() -> None:
    constraints = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    assert "://" not in constraints
    assert " @ " not in constraints
