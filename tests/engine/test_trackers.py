"""Each tracker read back by its own reader, behind a run that was cut and went on."""

import json
import sys
import warnings
from pathlib import Path

import pytest
import wandb

from simmim.engine.metrics import MetricsLog
from simmim.engine.trackers import TrackerName

pytestmark = pytest.mark.filterwarnings("ignore")  # of the trackers' own packages


def write_in_two_parts(folder: Path, tracker: TrackerName) -> None:
    for after in (0, 5):
        log = MetricsLog(folder / "metrics.jsonl", after_step=after, trackers=(tracker,))
        log.write({"step": after + 5, "loss": 1.0 / (after + 5), "gradient_norm": 2.0, "skipped_steps": 0})
        log.close()


def test_mlflow_has_the_numbers_of_both_parts_in_one_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "store").as_uri())
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    (tmp_path / "run").mkdir()
    write_in_two_parts(tmp_path / "run", "mlflow")
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=(tmp_path / "store").as_uri())
    place = client.get_experiment_by_name("simmim")
    assert place is not None
    runs = client.search_runs([place.experiment_id])
    assert [run.info.run_name for run in runs] == ["run"]
    history = client.get_metric_history(runs[0].info.run_id, "loss")
    assert [(one.step, one.value) for one in history] == [(5, 0.2), (10, 0.1)]
    assert set(runs[0].data.metrics) == {"loss", "gradient_norm"}


def test_weights_and_biases_goes_on_in_one_run_without_a_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        write_in_two_parts(tmp_path, "wandb")
        wandb.teardown()  # its service writes the files, and is through with them when it has ended
    name = json.loads((tmp_path / "trackers.json").read_text(encoding="utf-8"))["wandb"]
    files = sorted((tmp_path / "wandb").glob("offline-run-*/run-*.wandb"))
    assert [file.name for file in files] == [f"run-{name}.wandb"] * 2
    for file, loss in zip(files, (b"0.2", b"0.1"), strict=True):
        content = file.read_bytes()
        assert b"loss" in content
        assert b"gradient_norm" in content
        assert loss in content


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_a_missing_package_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: TrackerName) -> None:
    for module in [module for module in sys.modules if module.split(".")[0] == name]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, name, None)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=rf"simmim\[{name}\]"):
        MetricsLog(tmp_path / "metrics.jsonl", after_step=0, trackers=(name,))
