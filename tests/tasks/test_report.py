"""Pages made from the folders of real runs: while they go on, at their end, and of folders that lack things."""

import json
import logging
import shutil
from pathlib import Path

import pytest

import simmim
from simmim.engine.folder import RunFolder
from simmim.tasks import report as task

SETTINGS = {
    "schedule.duration": "4 steps",
    "schedule.warmup": "1 steps",
    "output.log_every": "2 steps",
    "output.evaluate_every": "2 steps",
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    settings = {**SETTINGS, "output.progress": False}
    return simmim.pretrain("tiny", data="digits", out=tmp_path_factory.mktemp("report") / "run", settings=settings).path


def test_a_run_ends_with_its_page(run: Path) -> None:
    text = (run / "report.html").read_text(encoding="utf-8")
    assert "complete, 4 steps" in text
    assert "1,797" in text
    assert "WARNING" not in (run / "log.txt").read_text(encoding="utf-8")
    last = json.loads((run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()[-1])
    assert f"{last['fixed_loss']:.4f}" in text
    assert 0.05 < last["memory_gib"] < 64


def test_facts_are_those_of_the_folder(run: Path) -> None:
    facts = task.read_facts(run)
    assert [row["step"] for row in facts.rows] == [2, 4]
    assert [picture.step for picture in facts.pictures] == [2, 4]
    assert (facts.image_size, facts.complete, facts.task) == ((64, 64), True, "pretrain")
    assert facts.settings["masking.mask_patch"] == "16 px"
    assert facts.good_avgdist == pytest.approx((10 / 3, 20 / 3))


def test_an_old_folder_that_lacks_most_things_has_a_page(run: Path, tmp_path: Path) -> None:
    shutil.copy(run / "recipe.yaml", tmp_path / "recipe.yaml")
    (tmp_path / "bad_files.txt").write_bytes(b"caf\xe9.png\tcannot be read\n")
    assert task.report([tmp_path]) == tmp_path / "report.html"
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "caf\ufffd.png" in text


def test_results_of_judging_are_told(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "run")
    (tmp_path / "run" / "probe.json").write_text('{"knn_accuracy": 0.875, "neighbours": 5}', encoding="utf-8")
    text = task.report([tmp_path / "run"]).read_text(encoding="utf-8")
    assert "87.5%" in text


def test_classifiers_made_from_a_run_and_its_probe_are_on_its_page(run: Path) -> None:
    words = {"schedule.duration": "2 steps", "schedule.warmup": "1 steps", "output.progress": False, "batch": 16}
    made = simmim.finetune(run, data="digits", out=run.parent / "classifier", settings=words).path
    (run.parent / "other").mkdir()
    shutil.copy(made / "result.json", run.parent / "other")  # of whose encoder nothing is known
    text = (run / "report.html").read_text(encoding="utf-8")
    accuracy = json.loads((made / "result.json").read_text(encoding="utf-8"))["accuracy"]
    assert "Fine-tuning in classifier" in text
    assert f"{accuracy:.1%}" in text
    assert "Fine-tuning in other" not in text
    simmim.probe(run, data="digits")
    assert "Probe of frozen features" in (run / "report.html").read_text(encoding="utf-8")


def test_several_runs_need_a_place_and_no_run_is_an_error(run: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="--out"):
        task.report([run, run])
    with pytest.raises(ValueError, match="holds no run"):
        task.report([tmp_path])
    with pytest.raises(ValueError, match="there is no run"):
        task.report([tmp_path / "nowhere"])
    page = task.report([run, run], out=tmp_path / "compare.html")
    assert "2 runs side by side" in page.read_text(encoding="utf-8")


def test_a_page_that_fails_is_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="simmim"):
        task.Page(RunFolder(tmp_path / "nowhere")).write()
    assert "report.html could not be written" in caplog.text


def test_a_page_is_not_written_more_often_than_it_is_worth(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now, written = [1000.0], list[float]()
    monkeypatch.setattr(task.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(task, "report", lambda runs: written.append(now[0]))
    page = task.Page(RunFolder(run))
    for _ in range(100):
        now[0] += 1
        page.keep()
    assert written == [1031.0, 1062.0, 1093.0]
