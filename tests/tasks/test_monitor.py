"""Nearest neighbours while a run goes on, beside the same numbers worked out by hand from the saved encoder."""

from pathlib import Path

import numpy as np
import pytest
import torch

import simmim
from simmim.data import CentreCrop, LabelledDataConfig, Samples
from simmim.tasks.labelled import open_labelled
from simmim.units import LabelShare
from tasks.support import assert_same_run, rows, timeless

SETTINGS = {"schedule.duration": "4 steps", "output.evaluate_every": "2 steps", "output.progress": False}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    place = tmp_path_factory.mktemp("monitor")
    watched = {**SETTINGS, "monitor.data": "digits", "monitor.labels": "10 per class", "monitor.neighbours": 3}
    with_it = simmim.pretrain("tiny", data="digits", out=place / "with", settings=watched)
    without = simmim.pretrain("tiny", data="digits", out=place / "without", settings=SETTINGS)
    return with_it.path, without.path


def test_watching_changes_nothing_else(runs: tuple[Path, Path]) -> None:
    watched = [{n: v for n, v in row.items() if n != "knn_accuracy"} for row in timeless(rows(runs[0]))]
    assert watched == timeless(rows(runs[1]))
    with pytest.raises(AssertionError):
        assert_same_run(*runs)


def test_the_accuracy_is_that_of_neighbours_found_by_brute_force(runs: tuple[Path, Path]) -> None:
    encoder = simmim.load_encoder(runs[0])
    mean, std = encoder.pretrained_cfg["mean"][0], encoder.pretrained_cfg["std"][0]
    data = LabelledDataConfig(source="digits", labels=LabelShare(amount=10, unit="per class"))
    sides = []
    for source in open_labelled(data, seed=0)[:2]:
        samples = Samples(source, view=CentreCrop(), size=(64, 64), channels=1, seed=0)
        taken = [samples[(0, number)] for number in range(len(samples))]
        images = (torch.stack([one.pixels for one in taken]).float() / 255 - mean) / std
        with torch.no_grad():
            features = encoder.forward_features(images)[:, encoder.num_prefix_tokens :].mean(dim=1).numpy()
        sides.append((features / np.linalg.norm(features, axis=1, keepdims=True), [one.label for one in taken]))
    (known, labels), (asked, truth) = sides
    right = 0
    for feature, label in zip(asked, truth, strict=True):
        distances = np.sqrt(((known - feature) ** 2).sum(axis=1))
        votes = np.zeros(10)
        for nearest in np.argsort(distances)[:3]:
            votes[labels[nearest]] += 1 / distances[nearest]
        right += int(votes.argmax() == label)
    assert rows(runs[0])[-1]["knn_accuracy"] == pytest.approx(right / len(truth), abs=0.01)
