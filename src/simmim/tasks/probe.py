"""Probing: how far the frozen features of an encoder go, by nearest neighbours and by a linear classifier."""

import logging
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_score  # pyright: ignore[reportUnknownVariableType]
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline  # pyright: ignore[reportUnknownVariableType]
from sklearn.preprocessing import Normalizer, StandardScaler

from simmim.data import CentreCrop, LabelledDataConfig, Samples, Source, Statistics, evaluation_batches
from simmim.tasks.labelled import open_labelled
from simmim.tasks.load import encoder_path, load_encoder
from simmim.weights import EncoderFile, read_encoder

_log = logging.getLogger("simmim")

_NEIGHBOURS = (1, 5, 10, 20)
_STRENGTHS = tuple(10.0**power for power in range(-4, 3))
_MOST_FOLDS = 5


class Probed(NamedTuple):
    """How well frozen features tell the classes apart, on images that were held out."""

    knn_accuracy: float
    neighbours: int
    """Chosen by cross-validation on the training part."""
    linear_accuracy: float
    regularisation: float
    """Inverse strength of the penalty, chosen the same way."""
    training_images: int
    held_out_images: int
    classes: int


class _Features(NamedTuple):
    training: NDArray[np.float32]
    held_out: NDArray[np.float32]
    training_labels: NDArray[np.int64]
    held_out_labels: NDArray[np.int64]


def probe(run: str | Path, *, data: LabelledDataConfig, seed: int = 0, batch: int = 64, workers: int = 0) -> Probed:
    """Judge the encoder of a run by its frozen features, averaged over the map. Nothing is trained but the probes.

    Args:
        run: a run folder, or an `encoder.safetensors`.
        data: the labelled images.
        seed: chooses the labels, where `data.labels` asks for a part of them.
        batch: images encoded at a time.
        workers: processes that read images.
    """
    features = _features(run, data, seed=seed, batch=batch, workers=workers)
    folds = _folds(features.training_labels, seed)
    neighbours, knn = _best(
        [(count, _knn(count)) for count in _NEIGHBOURS if count <= _left_to_learn(features.training_labels, folds)],
        features,
        folds,
    )
    strength, linear = _best([(strength, _linear(strength)) for strength in _STRENGTHS], features, folds)
    return Probed(
        knn_accuracy=knn,
        neighbours=int(neighbours),
        linear_accuracy=linear,
        regularisation=strength,
        training_images=len(features.training),
        held_out_images=len(features.held_out),
        classes=len(np.unique(features.training_labels)),
    )


def _knn(neighbours: int) -> Any:
    return make_pipeline(Normalizer(), KNeighborsClassifier(neighbours, weights="distance"))


def _linear(strength: float) -> Any:
    return make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=2000))


def _folds(labels: NDArray[np.int64], seed: int) -> StratifiedKFold:
    rarest = int(np.bincount(labels)[np.unique(labels)].min())
    if rarest < 2:
        raise ValueError("a class has a single training image; a probe needs at least 2 of each to choose its settings")
    return StratifiedKFold(min(rarest, _MOST_FOLDS), shuffle=True, random_state=seed)


def _left_to_learn(labels: NDArray[np.int64], folds: StratifiedKFold) -> int:
    """Images that are left to be neighbours while one fold is judged."""
    return len(labels) - -(-len(labels) // folds.get_n_splits())


def _best(candidates: list[tuple[float, Any]], features: _Features, folds: StratifiedKFold) -> tuple[float, float]:
    """The setting that does best in cross-validation on the training part, and its accuracy on what was held out."""
    cross_validate = cast(Any, cross_val_score)  # scikit-learn says no types
    scores = [
        float(cross_validate(model, features.training, features.training_labels, cv=folds).mean())
        for _, model in candidates
    ]
    setting, model = candidates[int(np.argmax(scores))]
    model.fit(features.training, features.training_labels)
    return setting, float(model.score(features.held_out, features.held_out_labels))


def _features(run: str | Path, data: LabelledDataConfig, *, seed: int, batch: int, workers: int) -> _Features:
    about = read_encoder(encoder_path(run))[1]
    training, held_out, _ = open_labelled(data, seed=seed)
    encoder = load_encoder(run)
    sides = [_encode(encoder, about, source, data, batch=batch, workers=workers) for source in (training, held_out)]
    (training_features, training_labels), (held_out_features, held_out_labels) = sides
    return _Features(training_features, held_out_features, training_labels, held_out_labels)


def _encode(
    encoder: Any, about: EncoderFile, source: Source, data: LabelledDataConfig, *, batch: int, workers: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    statistics = Statistics(about.channels, about.mean, about.std, 0)
    samples = Samples(
        source,
        view=CentreCrop(),
        size=about.image_size,
        channels=about.channels,
        seed=0,
        bad_share=data.bad_share,
        max_pixels=data.max_pixels,
        invalid=data.invalid,
    )
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    encoder.to(device)
    features: list[NDArray[np.float32]] = []
    labels: list[NDArray[np.int64]] = []
    with torch.no_grad():
        for part in evaluation_batches(samples, batch=batch, workers=workers):
            for path, reason in part.problems.items():
                _log.warning("%s is left out: %s", path, reason)
            part = part.readable()
            if not len(part):
                continue
            valid = None if part.valid is None else part.valid.to(device)
            pooled = average_map(encoder, statistics.normalise(part.images.to(device), valid))
            features.append(pooled.cpu().numpy())
            labels.append(part.labels.numpy())
    return np.concatenate(features), np.concatenate(labels)


def average_map(encoder: Any, images: torch.Tensor) -> torch.Tensor:
    """The encoder's features averaged over all places, class token left out (batch, num_features)."""
    features: torch.Tensor = encoder.forward_features(images)
    if features.ndim == 3:
        return features[:, int(getattr(encoder, "num_prefix_tokens", 0)) :].mean(dim=1)
    channels_last = features.shape[-1] == encoder.num_features
    return features.mean(dim=(1, 2) if channels_last else (2, 3))
