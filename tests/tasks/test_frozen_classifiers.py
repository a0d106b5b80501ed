"""The classifiers and their search, against scikit-learn's own."""

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Normalizer, StandardScaler

from simmim.encoders.layers import Place
from simmim.tasks import frozen_classifiers as classifiers
from simmim.tasks.features import Features
from simmim.tasks.frozen_classifiers import Knn, Linear
from simmim.tasks.probe import judge


def _digits(start: int, stop: int, noise: float = 4.0) -> tuple[np.ndarray, np.ndarray]:
    pixels, labels = load_digits(return_X_y=True)
    spoiled = pixels + np.random.default_rng(1).normal(0, noise, pixels.shape)
    return spoiled[start:stop].astype(np.float32), labels[start:stop].astype(np.int64)


def _theirs(setting: Knn | Linear):
    if isinstance(setting, Linear):
        return make_pipeline(StandardScaler(), LogisticRegression(C=setting.strength, max_iter=2000))

    def weights(distances: np.ndarray) -> np.ndarray:
        return np.exp((1 - distances**2 / 2) / setting.temperature)  # cosine of vectors of length 1

    model = KNeighborsClassifier(setting.neighbours, weights=weights, algorithm="brute")
    return make_pipeline(StandardScaler(), Normalizer(), model)


@pytest.mark.parametrize("setting", [Knn(1, 1.0), Knn(5, 0.1), Knn(20, 0.03), Knn(20, 1.0)])
def test_nearest_neighbours_answer_as_in_scikit_learn(setting: Knn) -> None:
    learn, learned = _digits(0, 300)
    ask, asked = _digits(300, 900)
    ours = classifiers.answer_knn(learn, learned, ask, setting)
    theirs = _theirs(setting).fit(learn, learned).predict(ask)
    assert (ours != theirs).sum() <= 1  # a near tie may fall either way
    assert 0.6 < (ours == asked).mean() < 1


def test_the_search_of_neighbours_is_a_cross_validation() -> None:
    learn, learned = _digits(0, 200)
    folds = classifiers.folds_of(learned, 0)
    found = classifiers.search_knn(learn, learned, folds)
    theirs = {
        (k, t): cross_val_score(_theirs(Knn(k, t)), learn, learned, cv=folds).mean()
        for k in (1, 5, 10, 20, 50)
        for t in (0.03, 0.1, 0.3, 1.0)
    }
    assert found.accuracy == pytest.approx(theirs[found.setting], abs=0.006)
    assert found.accuracy == pytest.approx(max(theirs.values()), abs=0.006)
    assert max(theirs.values()) > min(theirs.values()) + 0.02


def test_the_search_of_the_penalty_is_a_cross_validation() -> None:
    learn, learned = _digits(0, 200)
    folds = classifiers.folds_of(learned, 0)
    strengths = (1e-4, 1e-2, 1.0)
    found = classifiers.search_linear(learn, learned, folds, strengths)
    theirs = {c: cross_val_score(_theirs(Linear(c)), learn, learned, cv=folds).mean() for c in strengths}
    assert found.setting.strength == max(theirs, key=lambda c: theirs[c])
    assert found.accuracy == pytest.approx(max(theirs.values()), abs=0.006)
    assert max(theirs.values()) > min(theirs.values()) + 0.02


def _features(start: int, stop: int, labels: np.ndarray | None = None) -> Features:
    """Three layers of one set: noise, the digits with little noise, the digits with more."""
    known = _digits(start, stop)[1]
    noise = np.random.default_rng(start).normal(size=(stop - start, 64)).astype(np.float32)
    at = {
        Place(1, "mean"): noise,
        Place(2, "mean"): _digits(start, stop, 2.0)[0],
        Place(3, "mean"): _digits(start, stop, 9.0)[0],
    }
    return Features(at, known if labels is None else labels, np.arange(stop - start), {})


def test_the_layer_in_the_middle_is_found_and_held_out_labels_have_no_say() -> None:
    training, held_out = _features(0, 200), _features(200, 500)
    shuffled = held_out._replace(labels=np.random.default_rng(0).permutation(held_out.labels))
    probed, blind = (judge(training, side, wanted=list(training.at), seed=0) for side in (held_out, shuffled))
    assert (probed.layer, probed.knn_layer, probed.last_layer) == (2, 2, 3)
    assert probed.linear_accuracy > probed.last_linear_accuracy + 0.05
    assert blind.linear_accuracy < 0.25 < probed.linear_accuracy  # the labels really were others
    of_held_out = {"linear_accuracy", "knn_accuracy", "last_linear_accuracy", "last_knn_accuracy", "curve"}
    for name in set(probed._fields) - of_held_out:
        assert getattr(blind, name) == getattr(probed, name), name
    for one, other in zip(probed.curve, blind.curve, strict=True):
        assert one._replace(linear_held_out=0, knn_held_out=0) == other._replace(linear_held_out=0, knn_held_out=0)


def test_only_wanted_places_are_chosen_and_of_equals_the_last() -> None:
    training, held_out = _features(0, 200), _features(200, 500)
    assert judge(training, held_out, wanted=[Place(1, "mean")], seed=0).layer == 1
    same = {place: training.at[Place(2, "mean")] for place in training.at}
    asked = {place: held_out.at[Place(2, "mean")] for place in held_out.at}
    probed = judge(training._replace(at=same), held_out._replace(at=asked), wanted=list(same), seed=0)
    assert (probed.layer, probed.knn_layer) == (3, 3)
