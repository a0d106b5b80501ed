"""The probes give what scikit-learn gives on features that plain timm extracts."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
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


def test_the_last_layer_is_as_right_as_in_scikit_learn(run: Path, features: Features) -> None:
    """The average of the patches behind the final norm, extracted by plain timm."""
    probed = simmim.probe(run, data="digits", labels="10 per class", seed=4, layer=3, pooling="mean")
    (point,) = probed.curve
    scaler = StandardScaler().fit(features[0])
    learn, ask = scaler.transform(features[0]), scaler.transform(features[2])
    linear = LogisticRegression(C=point.regularisation, max_iter=2000).fit(learn, features[1])
    assert probed.linear_accuracy == pytest.approx(linear.score(ask, features[3]), abs=3 / 797)

    def weights(distances: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.exp((1 - distances**2 / 2) / point.temperature)

    knn = KNeighborsClassifier(point.neighbours, weights=weights).fit(normalize(learn), features[1])
    assert probed.knn_accuracy == pytest.approx(knn.score(normalize(ask), features[3]), abs=3 / 797)
    assert (probed.layer, probed.pooling, probed.knn_layer, probed.last_layer) == (3, "mean", 3, 3)
    assert min(probed.linear_accuracy, probed.knn_accuracy) > 0.13  # one in ten by guessing


def test_the_choice_is_a_point_of_the_curve_as_good_as_its_best_but_for_chance(probed) -> None:
    assert [(point.layer, point.pooling) for point in probed.curve] == [
        (layer, pooling) for layer in (1, 2, 3) for pooling in ("mean", "cls")
    ]
    points = {(point.layer, point.pooling): point for point in probed.curve}
    linear, knn = points[probed.layer, probed.pooling], points[probed.knn_layer, probed.knn_pooling]
    assert (linear.linear_held_out, linear.regularisation) == (probed.linear_accuracy, probed.regularisation)
    assert (knn.knn_held_out, knn.neighbours) == (probed.knn_accuracy, probed.neighbours)
    for kind, chosen in (("linear", linear), ("knn", knn)):
        name = f"{kind}_cross_validation"
        best = max(probed.curve, key=lambda point: (getattr(point, name), point.layer))
        assert chosen.layer >= best.layer
        # of 100 images, differing on at most all: a standard error is a tenth at most
        assert 0 <= getattr(best, name) - getattr(chosen, name) <= 0.1


def test_the_run_keeps_result_and_picture(probed, run: Path) -> None:
    simmim.probe(run, data="digits", labels="10 per class", seed=4)
    kept = json.loads((run / "probe.json").read_text())
    assert kept == json.loads(json.dumps(probed.as_json()))
    assert len(kept["curve"]) == 6
    with Image.open(run / "pictures" / "probe.png") as picture:
        assert picture.width > 800
        assert len(picture.convert("RGB").getcolors(1 << 20) or []) > 20


def test_the_same_encoder_in_a_file_is_judged_the_same(probed, run: Path) -> None:
    assert simmim.probe(run / "encoder.safetensors", data="digits", labels="10 per class", seed=4) == probed


def test_a_folder_without_class_folders_cannot_be_probed_and_the_layout_is_shown(run: Path, pictures: Path) -> None:
    with pytest.raises(ValueError, match="one sub-folder a class"):
        simmim.probe(run, data=pictures)


def test_a_layer_that_is_not_there_is_refused_before_any_image_is_read(run: Path) -> None:
    with pytest.raises(ValueError, match="no layer 4; this encoder has the layers 1 to 3"):
        simmim.probe(run, data="digits", layer=4)
