"""The classifiers and their search, against scikit-learn's own."""

import numpy as np
import pytest
from scipy.stats import ttest_rel
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict, cross_val_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Normalizer, StandardScaler

from simmim.encoders.layers import Place
from simmim.tasks import frozen_classifiers as classifiers
from simmim.tasks.features import Features
from simmim.tasks.frozen_classifiers import Found, Knn, Linear
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


def test_clearly_better_is_more_than_one_standard_error_of_the_paired_difference() -> None:
    """The t statistic of SciPy's paired test is that difference in standard errors."""
    generator, found = np.random.default_rng(0), []
    for _ in range(200):
        one, other = (generator.random((2, 60)) < generator.uniform(0.5, 0.9, (2, 1))).astype(bool)
        clear = classifiers.clearly_better(Found(None, one), Found(None, other))
        assert clear == (ttest_rel(one.astype(float), other.astype(float)).statistic > 1)
        found.append(clear)
    assert 20 < sum(found) < 180
    same = Found(None, one)
    assert not classifiers.clearly_better(same, same)


def test_what_was_named_rightly_is_said_image_by_image() -> None:
    learn, learned = _digits(0, 200)
    folds = classifiers.folds_of(learned, 0)
    found = classifiers.search_linear(learn, learned, folds, [1e-2])
    theirs = cross_val_predict(_theirs(Linear(1e-2)), learn, learned, cv=folds) == learned
    assert (found.hits != theirs).sum() <= 1
    assert found.accuracy == found.hits.mean()
    assert 0.1 < found.accuracy < 1


def test_a_layer_that_is_better_by_chance_does_not_push_out_the_last() -> None:
    """Layers 1 and 3 are the digits with equal noise; which of them a cross-validation prefers is luck."""
    pixels, labels = load_digits(return_X_y=True)
    lucky = 0
    for seed in range(6):
        noisy = {
            Place(layer, "mean"): (pixels + np.random.default_rng(10 * seed + layer).normal(0, 6, pixels.shape)).astype(
                np.float32
            )
            for layer in (1, 3)
        }
        sides = [
            Features(
                {place: each[part] for place, each in noisy.items()}, labels[part].astype(np.int64), np.arange(100), {}
            )
            for part in (slice(0, 100), slice(100, 200))
        ]
        probed = judge(sides[0], sides[1], wanted=list(noisy), seed=0)
        first, last = probed.curve
        ahead = round(100 * (first.linear_cross_validation - last.linear_cross_validation))
        lucky += ahead > 0
        if ahead <= 1:  # one image is never more than a standard error
            assert probed.layer == 3
    assert lucky, "else nothing was shown"
