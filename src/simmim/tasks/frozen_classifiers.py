"""The two classifiers on frozen features, nearest neighbours and a linear one, and the search for their settings.

Both see features with mean 0 and spread 1 on what they learn from. A search knows the training part only: every setting is
judged by cross-validation, and the best is taken. Of two that differ by no more than chance, which is better is not known;
`clearly_better` says when it is.
"""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from sklearn.preprocessing import StandardScaler, normalize  # pyright: ignore[reportUnknownVariableType]

Matrix = NDArray[np.float32]
Labels = NDArray[np.int64]
Hits = NDArray[np.bool_]

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
    """The best setting of a search, and how it did in cross-validation."""

    setting: Any
    hits: Hits
    """Which training images it named rightly when they were left out (images,)."""

    @property
    def accuracy(self) -> float:
        """Share of the training images that it named rightly when they were left out."""
        return float(self.hits.mean())


def folds_of(labels: Labels, seed: int) -> StratifiedKFold:
    """Up to five folds with the classes in proportion.

    Raises:
        ValueError: where a class has a single image.
    """
    rarest = int(np.bincount(labels)[np.unique(labels)].min())
    if rarest < 2:
        raise ValueError("a class has a single training image; a probe needs at least 2 of each to choose its settings")
    return StratifiedKFold(min(rarest, _MOST_FOLDS), shuffle=True, random_state=seed)


def clearly_better(one: Found, other: Found) -> bool:
    """Whether one beats the other by more than a standard error of their difference, image by image.

    Both must have been searched with the same folds of the same images, so that what makes an image hard falls out.
    """
    gain = one.hits.astype(np.float64) - other.hits
    return float(gain.mean()) > float(gain.std(ddof=1)) / math.sqrt(len(gain))


def fine_strengths(around: float) -> tuple[float, ...]:
    """Half decades around an inverse penalty, over three decades; weaker ones than 316 often do not converge."""
    return tuple(around * step for step in _FINE_STEPS)


def search_linear(features: Matrix, labels: Labels, folds: StratifiedKFold, strengths: Sequence[float]) -> Found:
    """The inverse penalty that does best; each fit starts from the one with the stronger penalty."""
    ordered = sorted(strengths)

    def answer(learn: Matrix, learned: Labels, ask: Matrix) -> Labels:
        model: Any = LogisticRegression(max_iter=2000, warm_start=True)
        return np.stack([model.set_params(C=strength).fit(learn, learned).predict(ask) for strength in ordered])

    return _best([Linear(strength) for strength in ordered], _in_folds(features, labels, folds, answer))


def search_knn(features: Matrix, labels: Labels, folds: StratifiedKFold) -> Found:
    """The number of neighbours and the temperature that do best; the neighbours are looked up once a fold."""
    left = len(labels) - -(-len(labels) // folds.get_n_splits())
    settings = [Knn(*pair) for pair in itertools.product((k for k in _NEIGHBOURS if k <= left), _TEMPERATURES)]

    def answer(learn: Matrix, learned: Labels, ask: Matrix) -> Labels:
        return _votes(learn, learned, ask, settings)

    return _best(settings, _in_folds(features, labels, folds, answer))


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


_Answer = Callable[[Matrix, Labels, Matrix], Labels]
"""What to learn from, its labels and what to ask, to the class under each setting (settings, images asked)."""


def _in_folds(features: Matrix, labels: Labels, folds: StratifiedKFold, answer: _Answer) -> Hits:
    """Which images each setting names rightly when it has not learned from them (settings, images)."""
    said: Labels | None = None
    for inside, outside in cast("Iterator[tuple[Labels, Labels]]", folds.split(features, labels)):
        learn, ask = _standardised(features[inside], features[outside])
        named = answer(learn, labels[inside], ask)
        said = np.empty((len(named), len(labels)), dtype=np.int64) if said is None else said
        said[:, outside] = named
    assert said is not None, "there are at least two folds"
    return said == labels


def _best(settings: Sequence[Linear | Knn], hits: Hits) -> Found:
    best = int(np.argmax(hits.mean(axis=1)))
    return Found(settings[best], hits[best])
