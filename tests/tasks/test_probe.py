"""The probes give what scikit-learn gives on features that plain timm extracts."""

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler, normalize

import simmim
from simmim.data import choose_labels, open_source
from simmim.units import LabelShare
from tasks.digits import PRETRAINING, labels_of, normalised, pixels_of, plain_timm

pytestmark = pytest.mark.xdist_group("finetune")

Features = tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.float32], NDArray[np.int64]]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return simmim.pretrain(
        "tiny", data="digits", out=tmp_path_factory.mktemp("digits") / "run", settings=PRETRAINING
    ).path


@pytest.fixture(scope="module")
def features(run: Path) -> Features:
    model, words = plain_timm(run / "encoder.safetensors")
    training = open_source("digits", split="train", labelled=True)
    chosen = choose_labels(training, LabelShare(amount=10, unit="per class"), 4)
    held_out = open_source("digits", split="test", labelled=True)
    assert np.bincount(labels_of(chosen)).tolist() == [10] * 10
    found = []
    for source in (chosen, held_out):
        with torch.no_grad():
            tokens = model.forward_features(normalised(pixels_of(source), words))
        found += [tokens[:, 1:].mean(dim=1).numpy(), labels_of(source)]
    return found[0], found[1], found[2], found[3]


@pytest.fixture(scope="module")
def probed(run: Path):
    return simmim.probe(run, data="digits", labels="10 per class", seed=4)


def test_the_probe_says_what_it_learned_from(probed) -> None:
    assert (probed.training_images, probed.held_out_images, probed.classes) == (100, 797, 10)


def test_nearest_neighbours_are_as_right_as_in_scikit_learn(probed, features: Features) -> None:
    model = KNeighborsClassifier(probed.neighbours, weights="distance").fit(normalize(features[0]), features[1])
    expected = float(model.score(normalize(features[2]), features[3]))
    assert probed.knn_accuracy == pytest.approx(expected, abs=2 / 797)  # batches of another size round otherwise
    assert probed.knn_accuracy > 0.13  # one in ten by guessing


def test_the_linear_probe_is_as_right_as_in_scikit_learn(probed, features: Features) -> None:
    scaler = StandardScaler().fit(features[0])
    model = LogisticRegression(C=probed.regularisation, max_iter=2000).fit(scaler.transform(features[0]), features[1])
    expected = float(model.score(scaler.transform(features[2]), features[3]))
    assert probed.linear_accuracy == pytest.approx(expected, abs=2 / 797)
    assert probed.linear_accuracy > 0.13


def test_the_penalty_is_the_best_of_a_cross_validation_on_the_training_part(probed, features: Features) -> None:
    folds = StratifiedKFold(5, shuffle=True, random_state=4)
    score = {
        strength: cross_val_score(
            make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=2000)), *features[:2], cv=folds
        ).mean()
        for strength in (probed.regularisation, 1e-4, 1e2)
    }
    assert score[probed.regularisation] == pytest.approx(max(score.values()), abs=0.011)


def test_the_same_encoder_in_a_file_is_judged_the_same(probed, run: Path) -> None:
    assert simmim.probe(run / "encoder.safetensors", data="digits", labels="10 per class", seed=4) == probed


def test_a_folder_without_class_folders_cannot_be_probed_and_the_layout_is_shown(run: Path, pictures: Path) -> None:
    with pytest.raises(ValueError, match="one sub-folder a class"):
        simmim.probe(run, data=pictures)
