"""The two classifiers on frozen features, nearest neighbours and a linear one, and the search for their settings.

Both see features with mean 0 and spread 1 on what they learn from. A search knows the training part only: every setting is
judged by cross-validation, and the best is taken.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from sklearn.preprocessing import StandardScaler, normalize  # pyright: ignore[reportUnknownVariableType]

Matrix = NDArray[np.float32]
Labels = NDArray[np.int64]

COARSE_STRENGTHS = (1e-3, 1e-1, 10.0)
"""Inverse penalties tried at every place."""
_FINE_STEPS = tuple(10.0 ** (half / 2) for half in range(-3, 4))
_NEIGHBOURS = (1, 5, 10, 20, 50)
_TEMPERATURES = (0.03, 0.1, 0.3, 1.0)
_MOST_FOLDS = 5
_ROWS = 2048  # asked at a time


class Linear(NamedTuple):
    """A setting of the linear classifier."""

    strength: float
    """Inverse strength of the penalty (scikit-learn's C)."""


class Knn(NamedTuple):
    """A setting of the nearest neighbours: votes are weighted by exp(cosine / temperature)."""

    neighbours: int
    temperature: float


class Found(NamedTuple):
    """The best setting of a search and its accuracy in cross-validation."""

    setting: Any
    accuracy: float


def folds_of(labels: Labels, seed: int) -> StratifiedKFold:
    """Up to five folds with the classes in proportion.

    Raises:
        ValueError: where a class has a single image.
    """
    rarest = int(np.bincount(labels)[np.unique(labels)].min())
    if rarest < 2:
        raise ValueError("a class has a single training image; a probe needs at least 2 of each to choose its settings")
    return StratifiedKFold(min(rarest, _MOST_FOLDS), shuffle=True, random_state=seed)


def fine_strengths(around: float) -> tuple[float, ...]:
    """Half decades around an inverse penalty, over three decades."""
    return tuple(around * step for step in _FINE_STEPS)


def search_linear(features: Matrix, labels: Labels, folds: StratifiedKFold, strengths: Sequence[float]) -> Found:
    """The inverse penalty that does best; each fit starts from the one with the stronger penalty."""
    ordered = sorted(strengths)

    def judge(learn: Matrix, learned: Labels, ask: Matrix, asked: Labels) -> list[float]:
        model: Any = LogisticRegression(max_iter=2000, warm_start=True)
        return [float(model.set_params(C=strength).fit(learn, learned).score(ask, asked)) for strength in ordered]

    return _best([Linear(strength) for strength in ordered], _in_folds(features, labels, folds, judge))


def search_knn(features: Matrix, labels: Labels, folds: StratifiedKFold) -> Found:
    """The number of neighbours and the temperature that do best; the neighbours are looked up once a fold."""
    left = len(labels) - -(-len(labels) // folds.get_n_splits())
    settings = [Knn(*pair) for pair in itertools.product((k for k in _NEIGHBOURS if k <= left), _TEMPERATURES)]

    def judge(learn: Matrix, learned: Labels, ask: Matrix, asked: Labels) -> list[float]:
        votes = _votes(learn, learned, ask, settings)
        return [float(right) for right in np.mean(votes == asked, axis=1)]

    return _best(settings, _in_folds(features, labels, folds, judge))


def answer_linear(learn: Matrix, learned: Labels, ask: Matrix, setting: Linear) -> Labels:
    """What the linear classifier says of images it has not seen."""
    learn, ask = _standardised(learn, ask)
    model: Any = LogisticRegression(C=setting.strength, max_iter=2000)
    return model.fit(learn, learned).predict(ask)


def answer_knn(learn: Matrix, learned: Labels, ask: Matrix, setting: Knn) -> Labels:
    """What the nearest neighbours say of images they have not seen."""
    learn, ask = _standardised(learn, ask)
    return _votes(learn, learned, ask, [setting])[0]


def _votes(learn: Matrix, learned: Labels, ask: Matrix, settings: Sequence[Knn]) -> Labels:
    """The class that wins under each setting (settings, images asked)."""
    learn, ask = (cast(Matrix, normalize(side)) for side in (learn, ask))
    most = max(setting.neighbours for setting in settings)
    won = np.empty((len(settings), len(ask)), dtype=np.int64)
    for start in range(0, len(ask), _ROWS):
        cosine = ask[start : start + _ROWS] @ learn.T
        near = np.argpartition(-cosine, most - 1, axis=1)[:, :most]
        near = np.take_along_axis(near, np.argsort(-np.take_along_axis(cosine, near, 1), axis=1, kind="stable"), 1)
        cosine, classes = np.take_along_axis(cosine, near, 1).astype(np.float64), learned[near]
        rows = np.arange(len(near))[:, None]
        for number, (count, temperature) in enumerate(settings):
            tally = np.zeros((len(near), int(learned.max()) + 1))
            weights = np.exp((cosine[:, :count] - cosine[:, :1]) / temperature)  # the nearest weighs 1: no underflow
            np.add.at(tally, (rows, classes[:, :count]), weights)
            won[number, start : start + _ROWS] = tally.argmax(axis=1)
    return won


def _standardised(learn: Matrix, ask: Matrix) -> tuple[Matrix, Matrix]:
    scaler: Any = StandardScaler().fit(learn)
    return scaler.transform(learn), scaler.transform(ask)


_Judge = Callable[[Matrix, Labels, Matrix, Labels], list[float]]


def _in_folds(features: Matrix, labels: Labels, folds: StratifiedKFold, judge: _Judge) -> list[float]:
    splits = cast("Iterator[tuple[Labels, Labels]]", folds.split(features, labels))
    scores = [
        judge(learn, labels[inside], ask, labels[outside])
        for inside, outside in splits
        for learn, ask in [_standardised(features[inside], features[outside])]
    ]
    return [float(score) for score in np.mean(scores, axis=0)]


def _best(settings: Sequence[Linear | Knn], scores: list[float]) -> Found:
    best = int(np.argmax(scores))
    return Found(settings[best], scores[best])
