"""The command line: it answers at once, prints what programs can read, and an error is a sentence."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import simmim
from tasks.support import folder_of_pictures, run

pytestmark = pytest.mark.xdist_group("cli")

VERBS = (
    *("doctor", "pretrain", "finetune", "probe", "evaluate", "embed", "reconstruct", "report", "import", "export"),
    *("ablate", "studies", "avgdist", "clusters", "tokenizer", "demo", "recipes", "show", "explain"),
)

_HELP = """
import sys
sys.argv = ["simmim", *sys.argv[1:]]
from simmim.cli import main
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
heavy = {"torch", "timm", "numpy", "sklearn", "matplotlib"} & sys.modules.keys()
assert not heavy, heavy
"""


@pytest.mark.parametrize("words", [("--help",), ("pretrain", "--help"), ("--version",)], ids=" ".join)
def test_help_is_given_without_loading_torch(words: tuple[str, ...]) -> None:
    done = subprocess.run([sys.executable, "-c", _HELP, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (simmim.__version__ if words == ("--version",) else "simmim") in done.stdout


def test_help_names_every_verb() -> None:
    process = run("--help")
    assert process.process.returncode == 0
    for verb in VERBS:
        assert verb in process.stdout


def test_recipes_are_listed_as_json() -> None:
    process = run("recipes", "--json")
    assert process.process.returncode == 0, process.stderr
    found = json.loads(process.stdout)
    names = {recipe["name"] for recipe in found}
    assert names >= {
        "demo",
        "tiny",
        "swin_base_192px_100ep",
        "swin_base_192px_800ep",
        "swin_large_192px_800ep",
        "vit_base_224px_800ep",
    }
    for recipe in found:
        assert recipe["task"] in ("pretrain", "finetune", "tokenizer")
        assert recipe["summary"]
        assert recipe["notes"]["command"]


def test_a_recipe_is_shown_as_json_with_its_overrides() -> None:
    process = run("show", "tiny", "masking.ratio=0.5", "data.image_size=[96,", "160]", "--json")
    assert process.process.returncode == 0, process.stderr
    shown = json.loads(process.stdout)
    assert shown["masking"] == {"kind": "random", "ratio": 0.5, "mask_patch": "16 px"}
    assert shown["data"]["image_size"] == "96x160 px"


@pytest.mark.parametrize("recipe", ["tiny", "swin_large_192px_800ep", "finetune"])
def test_what_show_prints_is_a_recipe(recipe: str, tmp_path: Path) -> None:
    process = run("show", recipe)
    assert process.process.returncode == 0, process.stderr
    saved = tmp_path / "mine.yaml"
    saved.write_text(process.stdout, encoding="utf-8")
    assert simmim.resolve(saved) == simmim.resolve(recipe)


def test_a_setting_is_explained_as_json() -> None:
    process = run("explain", "masking.ratio", "--json")
    assert process.process.returncode == 0, process.stderr
    every_kind = json.loads(process.stdout)
    assert {one["path"] for one in every_kind} == {"masking.ratio"}
    found = every_kind[0]  # of the default kind
    assert found["default"] == "0.6"
    assert "> 0" in found["allowed"]
    assert "< 1" in found["allowed"]
    assert found["description"]


def _refused(*words: str) -> str:
    process = run(*words)
    assert process.process.returncode == 2
    assert "Traceback" not in process.stderr
    return process.stderr


def test_an_unknown_verb_is_refused_and_the_likely_one_is_named() -> None:
    said = _refused("pretrian", "tiny")
    assert "pretrian" in said
    assert "pretrain" in said.replace("pretrian", "")


def test_an_unknown_recipe_is_refused_and_the_likely_one_is_named(tmp_path: Path) -> None:
    said = _refused("pretrain", "tinny", "--data", "digits", "--out", str(tmp_path / "run"))
    assert "tinny" in said
    assert "'tiny'" in said
    assert not (tmp_path / "run").exists()


def test_several_wrong_settings_are_all_named_at_once(tmp_path: Path) -> None:
    said = _refused(
        *("pretrain", "tiny", "--data", "digits", "--out", str(tmp_path / "run")),
        *("masking.ratoi=0.5", "encoder.kind=swim", "optimizer.lr=-1", "batch=16 apples", "data.image_size=[1, 2, 3]"),
        *("schedule.duration=5", "machine.precision=fp8"),
    )
    for word in (
        *("masking.ratoi", "'masking.ratio'", "encoder.kind", "'swin'", "optimizer.lr", "batch", "apples"),
        *("data.image_size", "schedule.duration", "machine.precision", "bf16"),
    ):
        assert word in said
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("pretrain", "tiny", "--data", "digits"), "--out"),
        (("pretrain", "tiny", "--data", "digits", "--out", "run", "nonsense"), "nonsense"),
        (("pretrain", "tiny", "--out", "run"), "--data"),
        (("pretrain", "finetune", "--data", "digits", "--out", "run"), "finetune"),
        (("explain", "masking.ratoi"), "masking.ratio"),
        (("reconstruct", "nothing", "a.png", "--out", "out"), "nothing"),
        (("probe", "nothing", "--data", "digits"), "nothing"),
        (("doctor", "digits", "--samples", "0"), "samples is 0"),
        (("doctor", "digits", "--write", "."), "takes a file, such as my.yaml"),
        (("avgdist", "--picture", "/dev/null/plan.png"), ".part: not a directory"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_wrong_command_is_refused_with_what_is_wrong(words: tuple[str, ...], named: str, tmp_path: Path) -> None:
    process = run(*words, cwd=tmp_path)
    assert process.process.returncode == 2
    assert "Traceback" not in process.stderr
    assert named in process.stderr
    assert not (tmp_path / "run" / "recipe.yaml").exists()


def test_the_verbs_that_print_tables_print_json_and_plain_tables(tmp_path: Path) -> None:
    """One small run, and everything that is asked of it."""
    data = folder_of_pictures(tmp_path / "data" / "a", 16, height=64, width=64)
    folder_of_pictures(tmp_path / "data" / "b", 16, height=48, width=64)
    made = tmp_path / "run"
    process = run(
        *("pretrain", "tiny", "--data", str(data.parent), "--out", str(made), "schedule.duration=2 steps"),
        "schedule.warmup=1 steps",
    )
    assert process.process.returncode == 0, process.stderr
    asked = run("reconstruct", str(made), str(data), "--out", str(tmp_path / "drawn"), "--json")
    drawn = json.loads(asked.stdout)
    assert len(drawn) == 16
    assert all(Path(one["picture"]).exists() and one["loss"] > 0 for one in drawn)
    table = run("probe", str(made), "--data", str(data.parent)).stdout
    judged = json.loads(run("probe", str(made), "--data", str(data.parent), "--json").stdout)
    assert judged["classes"] == 2
    assert f"{judged['knn_accuracy']:.1%}" in table
    assert "nearest neighbours" in table


@pytest.mark.parametrize("words", [["recipes"], ["recipes", "--json"], ["--help"]], ids=" ".join)
def test_a_reader_that_has_gone_is_no_error(words: list[str]) -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([sys.executable, "-m", "simmim", *words], stdout=write, stderr=subprocess.PIPE, check=False)
    os.close(write)
    assert (done.returncode, done.stderr) == (1, b"")
