"""Where the numbers of a run go beside metrics.jsonl: TensorBoard, Weights & Biases, MLflow. Names are the same in all."""

import json
import os
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

from simmim.engine.events import EventFile
from simmim.files import write_text_atomically

TrackerName = Literal["tensorboard", "wandb", "mlflow"]

_IDS_FILE = "trackers.json"
_PROJECT = "simmim"


class Tracker(Protocol):
    """Takes the numbers of reports."""

    def add(self, scalars: Mapping[str, float], *, step: int) -> None:
        """Add the numbers of a report."""
        ...

    def close(self) -> None:
        """Nothing more will come."""
        ...


def open_trackers(names: Sequence[TrackerName], folder: Path, *, after_step: int) -> list[Tracker]:
    """The trackers of a run; one that goes on continues the run it has in each of them.

    Args:
        names: which ones.
        folder: the folder of the run; TensorBoard's events and Weights & Biases' files lie in it, and MLflow's where
            MLFLOW_TRACKING_URI does not say otherwise.
        after_step: the step from which the run goes on, 0 for a new one.

    Raises:
        ValueError: where a package is not installed, naming the extra that brings it.
    """
    ids = _Ids(folder / _IDS_FILE)
    return [_open(name, folder, ids, after_step) for name in dict.fromkeys(names)]


def _open(name: TrackerName, folder: Path, ids: "_Ids", after_step: int) -> Tracker:
    try:
        if name == "wandb":
            return _WeightsAndBiases(folder, ids)
        if name == "mlflow":
            return _MLflow(folder, ids)
    except ModuleNotFoundError as error:
        raise ValueError(
            f'output.trackers asks for {name}, which is not installed ({error}); pip install "simmim[{name}]"'
        ) from error
    return EventFile(folder / "events", purge_step=after_step + 1 if after_step else None)


class _Ids:
    """What a run is called in each tracker, kept in its folder so that it goes on there."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: dict[str, str] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}

    def get(self, name: str) -> str | None:
        return self._known.get(name)

    def keep(self, name: str, run: str) -> None:
        self._known[name] = run
        write_text_atomically(self._path, json.dumps(self._known, indent=2) + "\n")


class _WeightsAndBiases:
    def __init__(self, folder: Path, ids: _Ids) -> None:
        import wandb

        run = ids.get("wandb") or uuid.uuid4().hex[:12]
        ids.keep("wandb", run)
        settings = wandb.Settings(console="off", silent=True, save_code=False, disable_git=True)
        self._run: Any = wandb.init(
            project=os.environ.get("WANDB_PROJECT", _PROJECT),
            id=run,
            name=folder.resolve().name,
            dir=str(folder),
            resume="allow",
            settings=settings,
        )

    def add(self, scalars: Mapping[str, float], *, step: int) -> None:
        self._run.log(dict(scalars), step=step)

    def close(self) -> None:
        self._run.finish()


class _MLflow:
    def __init__(self, folder: Path, ids: _Ids) -> None:
        uri = os.environ.get("MLFLOW_TRACKING_URI") or (folder.resolve() / "mlruns").as_uri()
        if uri.startswith("file:"):
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # read when the store is opened
        from mlflow.entities import Metric
        from mlflow.tracking import MlflowClient

        self._metric: Any = Metric
        self._client: Any = MlflowClient(tracking_uri=uri)
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", _PROJECT)
        experiment = self._client.get_experiment_by_name(name)
        place = experiment.experiment_id if experiment else self._client.create_experiment(name)
        run = ids.get("mlflow")
        if run is None:
            run = self._client.create_run(place, run_name=folder.resolve().name).info.run_id
            ids.keep("mlflow", run)
        self._id: str = run

    def add(self, scalars: Mapping[str, float], *, step: int) -> None:
        now = time.time_ns() // 1_000_000
        metrics = [self._metric(name, value, now, step) for name, value in scalars.items()]
        self._client.log_batch(self._id, metrics=metrics)

    def close(self) -> None:
        self._client.set_terminated(self._id, "FINISHED")
