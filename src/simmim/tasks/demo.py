"""The whole job in minutes, on images that come with scikit-learn: pre-train, then learn from few labels, with and without."""

import json
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, cast

from simmim.engine.bar import bar
from simmim.files import write_text_atomically
from simmim.report import print_table
from simmim.tasks.catalogue import resolve
from simmim.tasks.finetune import RESULT_FILE, FinetuneConfig, finetune
from simmim.tasks.pretrain import PretrainConfig, pretrain

_DATA = "digits"
_SEEDS = (0, 1, 2)
_LABELS_PER_CLASS = 10
_SCRATCH_LRS = (3e-4, 1e-3, 3e-3)
SUMMARY_FILE = "summary.json"


class Summary(NamedTuple):
    """What the demo found, on images that nothing was learned from."""

    pretrained_accuracy: float
    """Mean over the seeds."""
    scratch_accuracy: float
    pretrained_accuracies: list[float]
    """One a seed."""
    scratch_accuracies: list[float]
    scratch_lr: float
    """The learning rate at which training from scratch does best, of three."""
    labels_per_class: int
    seeds: tuple[int, ...]


class _Cell(NamedTuple):
    """One fine-tuning run."""

    folder: str
    weights: str
    seed: int
    lr: float


def demo(*, out: Path) -> Summary:
    """Run the demo in a folder; what is there already is not done again.

    The same labels, steps and seeds with and without pre-training. Training from scratch gets its own best learning rate,
    chosen by the very accuracy it is then judged by; the pre-trained network gets one fixed beforehand.
    """
    pretrained = out / "pretrained"
    _say("1. pre-training on 1000 handwritten digits, without their labels")
    config = resolve("demo", task="pretrain", extra={"data.source": _DATA})
    pretrain(cast(PretrainConfig, config), out=pretrained, resume=True)
    _say("2. learning from 10 labels a class, with and without it")
    summary = _summarise(_accuracies(out, pretrained))
    write_text_atomically(out / SUMMARY_FILE, json.dumps(summary._asdict(), indent=2) + "\n")
    return summary


def _say(text: str) -> None:
    print(text, file=sys.stderr)


def _cells() -> Iterator[_Cell]:
    recipe = cast(FinetuneConfig, resolve("demo_finetune", task="finetune"))
    for seed in _SEEDS:
        yield _Cell(f"finetuned_seed{seed}", "pretrained", seed, recipe.optimizer.lr)
    for lr in _SCRATCH_LRS:
        for seed in _SEEDS:
            yield _Cell(f"scratch_lr{lr:g}_seed{seed}", "random", seed, lr)


def _accuracies(out: Path, pretrained: Path) -> dict[_Cell, float]:
    found: dict[_Cell, float] = {}
    cells = list(_cells())
    with bar("fine-tuning", total=len(cells)) as advance:
        for cell in cells:
            extra = {
                "encoder": str(pretrained),
                "weights": cell.weights,
                "data.source": _DATA,
                "data.labels": f"{_LABELS_PER_CLASS} per class",
                "seed": cell.seed,
                "optimizer.lr": cell.lr,
                "output.progress": False,
            }
            config = cast(FinetuneConfig, resolve("demo_finetune", task="finetune", extra=extra))
            folder = finetune(config, out=out / cell.folder, resume=True)
            found[cell] = json.loads((folder.path / RESULT_FILE).read_text(encoding="utf-8"))["accuracy"]
            advance(1)
    return found


def _summarise(accuracies: dict[_Cell, float]) -> Summary:
    pretrained = [accuracy for cell, accuracy in accuracies.items() if cell.weights == "pretrained"]
    by_lr = {
        lr: [a for cell, a in accuracies.items() if (cell.weights, cell.lr) == ("random", lr)] for lr in _SCRATCH_LRS
    }
    best = max(by_lr, key=lambda lr: statistics.mean(by_lr[lr]))
    means = statistics.mean(pretrained), statistics.mean(by_lr[best])
    return Summary(*means, pretrained, by_lr[best], best, _LABELS_PER_CLASS, _SEEDS)


def tell(out: Path, summary: Summary) -> None:
    """Say what was found, where it lies, and what to type next."""
    rows = [
        (name, f"{mean:.1%}", " ".join(f"{value:.1%}" for value in values))
        for name, mean, values in (
            ("from scratch", summary.scratch_accuracy, summary.scratch_accuracies),
            ("pre-trained", summary.pretrained_accuracy, summary.pretrained_accuracies),
        )
    ]
    print_table((f"{summary.labels_per_class} labels a class", "accuracy", "each seed"), rows)
    picture = sorted((out / "pretrained" / "pictures").glob("*.png"))[-1]
    print(
        f"what it saw and what it predicted: {picture}\n"
        f"all numbers: {out / SUMMARY_FILE}\n"
        "next, on images of your own:\n"
        "  simmim pretrain tiny --data FOLDER --out runs/first\n"
        "  simmim reconstruct runs/first IMAGES... --out runs/first/mine"
    )
