"""Evaluation alone: what a fine-tuned classifier is worth on a labelled set, every image counted once."""

import csv
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from torch import Tensor

from simmim.config import load, read_yaml
from simmim.data import (
    Batch,
    CentreCrop,
    LabelledDataConfig,
    Source,
    evaluation_batches,
    open_source,
    splits_of,
)
from simmim.engine.distributed import Processes, start_processes
from simmim.engine.precision import Precision
from simmim.engine.products import fast_products
from simmim.files import write_atomically, write_text_atomically
from simmim.report import draw_confusion
from simmim.tasks.classifier import logits_of
from simmim.tasks.finetune import FinetuneConfig
from simmim.tasks.labelled import JUDGED_ON, samples_to_judge, statistics_of
from simmim.tasks.load import classifier_path, load_encoder
from simmim.tasks.scores import calibration_error, confusion_of, reliability_of
from simmim.weights import EncoderFile, read_encoder

EVALUATION_FILE, CONFUSION_FILE, PREDICTIONS_FILE = "evaluation.json", "confusion.png", "predictions.csv"
_TOP = 5
_PUBLISHED_RESIZE = 256 / 224


class ClassScore(NamedTuple):
    """How one class fared."""

    name: str
    images: int
    accuracy: float


class Evaluation(NamedTuple):
    """What a classifier is worth on a labelled set. Shares are 0 to 1."""

    top1: float
    top5: float
    """Share of the images whose class was among the five most likely; of fewer classes, among all."""
    mean_class_accuracy: float
    """Mean over the classes that occur: each counts alike."""
    loss: float
    """Mean cross-entropy, not smoothed."""
    calibration_error: float
    """Expected calibration error in 15 bins."""
    images: int
    unreadable: int
    """Files that could not be read; they are not counted."""
    classes: tuple[ClassScore, ...]
    """Those that occur."""
    folder: str
    """Where evaluation.json, confusion.png and predictions.csv lie."""


class _Answers(NamedTuple):
    """What was said of the images, in the order of the set."""

    place: NDArray[np.int64]
    """In the set."""
    label: NDArray[np.int64]
    named: NDArray[np.int64]
    probability: NDArray[np.float64]
    """Of the class that was named."""
    rank: NDArray[np.int64]
    """How many classes were held more likely than the true one."""
    loss: NDArray[np.float64]


def evaluate(
    run: str | Path,
    *,
    data: str | Path,
    split: str | None = None,
    out: str | Path | None = None,
    batch: int = 64,
    workers: int = 0,
) -> Evaluation:
    """Judge a fine-tuned classifier on labelled images; under torchrun each process takes its share, none padded.

    Args:
        run: folder of a fine-tuning run, or a `classifier.safetensors`.
        data: labelled images. Classes are matched by name; folders or labels that are numbers count the classifier's
            classes from 0, as in ImageNet-V2.
        split: part of the set; val or test if not given, and all of a set that has no parts.
        out: where the results are written; the folder `evaluation` beside the classifier if not given.
        batch: images judged at a time.
        workers: processes that read images.

    Raises:
        ValueError: where there is no classifier, or the classes are not its classes.
    """
    processes = start_processes()
    with closing(processes), fast_products():
        file = processes.from_main(lambda: classifier_path(run))
        about = read_encoder(file)[1]
        source = processes.from_main(lambda: _open(data, split))
        numbers = processes.from_main(lambda: class_numbers(source.classes, about.classes))
        settings = _settings_of(about, file)
        batches = evaluation_batches(
            samples_to_judge(settings, about, source, seed=0),
            batch=batch,
            workers=workers,
            rank=processes.rank,
            world=processes.world,
        )
        model = load_encoder(file).to(processes.device)
        images_of = _Normalised(about, processes)
        said = logits_of(model, _watched(batches, processes), images_of, Precision("fp32", processes.device))
        gathered = processes.gather(
            [_answers(batch.readable(), logits[~batch.replaced], numbers) for batch, logits in said]
        )
        answers = _joined([each for of_process in gathered for each in of_process])
        if not len(answers.place):
            raise ValueError(f"none of the {len(source)} images of {data} can be read, so nothing can be judged")
        folder = Path(out) if out is not None else file.parent / "evaluation"
        result = _scores(answers, about.classes, unreadable=len(source) - len(answers.place), folder=folder)
        processes.only_main(lambda: _write(result, answers, source, about, data=data))
    return result


def _settings_of(about: EncoderFile, file: Path) -> LabelledDataConfig:
    """How the run looked at what it was judged on; for weights of another program, as the published evaluations do."""
    if not about.recipe:
        return LabelledDataConfig(evaluation=CentreCrop(resize=_PUBLISHED_RESIZE), interpolation="bicubic")
    return load(FinetuneConfig, read_yaml(about.recipe), source=f"the recipe in {file}").data


class _Normalised:
    """The images of a batch as the classifier takes them."""

    def __init__(self, about: EncoderFile, processes: Processes) -> None:
        self._statistics, self._device = statistics_of(about), processes.device

    def __call__(self, batch: Batch) -> Tensor:
        return self._statistics.normalise(batch.images.to(self._device))


def _open(data: str | Path, split: str | None) -> Source:
    splits = splits_of(data)
    if split is None and splits:
        split = next((name for name in JUDGED_ON if name in splits), None)
    return open_source(data, split=split, labelled=True)


def class_numbers(given: Sequence[str], known: Sequence[str]) -> NDArray[np.int64]:
    """The classifier's number of each class of a set.

    By name; where the names are numbers that the classifier does not know, they count its classes.

    Raises:
        ValueError: where a class is not among the classifier's.
    """
    places = {name: number for number, name in enumerate(known)}
    odd = [name for name in given if name not in places]
    if not odd:
        return np.array([places[name] for name in given], dtype=np.int64)
    if all(name.isdecimal() and int(name) < len(known) for name in given):
        return np.array([int(name) for name in given], dtype=np.int64)
    raise ValueError(
        f"{len(odd)} of the {len(given)} classes are not among the {len(known)} of the classifier: {', '.join(odd[:5])}; "
        f"it knows {', '.join(known[:5])}{' and so on' if len(known) > 5 else ''}"
    )


def _watched(batches: Iterable[Batch], processes: Processes) -> Iterable[Batch]:
    console = Console(file=sys.stderr)
    silent = not (processes.is_main and console.is_terminal)
    return track(batches, "judging", console=console, disable=silent, transient=True)


def _answers(batch: Batch, logits: Tensor, numbers: NDArray[np.int64]) -> _Answers:
    logits = logits.double().cpu()
    labels = torch.from_numpy(numbers)[batch.labels]  # pyright: ignore[reportUnknownMemberType]
    probability, named = logits.softmax(dim=1).max(dim=1)
    ahead = (logits > logits.gather(1, labels[:, None])).sum(dim=1)
    loss = F.cross_entropy(logits, labels, reduction="none")
    return _Answers(*(each.numpy() for each in (batch.indices, labels, named, probability, ahead, loss)))


def _joined(answers: list[_Answers]) -> _Answers:
    return _Answers(*(np.concatenate(column) for column in zip(*answers, strict=True)))


def _scores(answers: _Answers, classes: tuple[str, ...], *, unreadable: int, folder: Path) -> Evaluation:
    right = answers.named == answers.label
    scores: list[ClassScore] = []
    for number in np.unique(answers.label).tolist():
        of_class = right[answers.label == number]
        scores.append(ClassScore(classes[number], len(of_class), float(of_class.mean())))
    return Evaluation(
        top1=float(right.mean()),
        top5=float((answers.rank < _TOP).mean()),
        mean_class_accuracy=float(np.mean([score.accuracy for score in scores])),
        loss=float(answers.loss.mean()),
        calibration_error=calibration_error(reliability_of(answers.probability, right)),
        images=len(right),
        unreadable=unreadable,
        classes=tuple(scores),
        folder=str(folder),
    )


def to_json(result: Evaluation) -> dict[str, Any]:
    """The result as plain data."""
    return {**result._asdict(), "classes": [score._asdict() for score in result.classes]}


def _write(result: Evaluation, answers: _Answers, source: Source, about: EncoderFile, *, data: str | Path) -> None:
    folder = Path(result.folder)
    reliability = reliability_of(answers.probability, answers.named == answers.label)
    text: dict[str, Any] = {
        "data": str(data),
        **to_json(result),
        "reliability": [each._asdict() for each in reliability],
    }
    del text["folder"]  # it lies there
    confusion = confusion_of(answers.label, answers.named, classes=len(about.classes))
    note = f"{result.top1:.1%} of {result.images} images named rightly"
    picture = draw_confusion(confusion, about.classes, note=note)
    write_atomically(folder / CONFUSION_FILE, lambda part: picture.save(part, format="PNG"))
    write_atomically(
        folder / PREDICTIONS_FILE, lambda part: _write_predictions(part, _rows(answers, source, about.classes))
    )
    write_text_atomically(folder / EVALUATION_FILE, json.dumps(text, indent=2) + "\n")


def _rows(answers: _Answers, source: Source, classes: tuple[str, ...]) -> Iterator[tuple[str, str, str, str]]:
    for place, label, named, probability in zip(*answers[:4], strict=True):
        yield source.name(int(place)), classes[int(label)], classes[int(named)], f"{probability:.6f}"


def _write_predictions(path: Path, rows: Iterable[tuple[str, ...]]) -> None:
    with path.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("file", "label", "named", "probability"))
        writer.writerows(rows)
