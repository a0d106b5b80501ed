import subprocess
import sys
import time
from pathlib import Path

import pytest

from simmim.engine import folder as module
from simmim.engine.folder import RunError, RunFolder

HOLD = """
import sys
from simmim.engine.folder import RunFolder
folder = RunFolder(sys.argv[1])
folder.open(resume=False)
print("held", flush=True)
sys.stdin.read()
"""


def test_a_new_folder_is_made_ready(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "deep" / "run")
    folder.open(resume=False)
    assert folder.checkpoints.is_dir()
    assert str(folder) == str(tmp_path / "deep" / "run")
    folder.close()


def test_an_empty_folder_may_be_used(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.open(resume=False)
    assert folder.checkpoints.is_dir()
    folder.close()


def test_a_folder_that_holds_anything_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(RunError, match=r"is not empty \(it holds thesis\.tex\); choose another --out"):
        RunFolder(tmp_path).open(resume=False)
    assert [item.name for item in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_folder_that_holds_a_run_is_refused_unless_it_is_resumed(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.recipe.write_text("task: pretrain")
    with pytest.raises(RunError, match="already holds a run; continue it with --resume"):
        folder.open(resume=False)
    folder.open(resume=True)
    folder.close()
    assert folder.recipe.read_text() == "task: pretrain"


def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("")
    with pytest.raises(RunError, match="is a file; --out takes a folder"):
        RunFolder(tmp_path / "run").open(resume=False)


def test_what_a_cut_left_half_written_is_cleared_away(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.open(resume=False)
    assert folder.checkpoints.is_dir()
    folder.close()
    rubbish = [tmp_path / ".recipe.yaml.12.part", folder.checkpoints / ".step_00000003.safetensors.12.part"]
    kept = [tmp_path / "encoder.safetensors", folder.checkpoints / "step_00000002.safetensors"]
    for path in (*rubbish, *kept):
        path.write_text("x")
    folder.open(resume=True)
    folder.close()
    assert [path.exists() for path in rubbish] == [False, False]
    assert [path.exists() for path in kept] == [True, True]


def test_another_process_cannot_write_the_same_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LOCK_PATIENCE_SECONDS", 0)
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    command = [sys.executable, "-c", HOLD, str(tmp_path / "run")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(RunError, match="another process is writing"):
            RunFolder(tmp_path / "run").open(resume=True)
        other.kill()
        other.wait()
        folder = RunFolder(tmp_path / "run")  # the kernel lets go of it however a process ends
        folder.open(resume=True)
        folder.close()


def test_a_folder_that_was_let_go_can_be_taken_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LOCK_PATIENCE_SECONDS", 0)
    first, second = RunFolder(tmp_path), RunFolder(tmp_path)
    first.open(resume=False)
    with pytest.raises(RunError, match="another process"):
        second.open(resume=True)
    first.close()
    second.open(resume=True)
    second.close()
    second.close()
