"""How good frozen features are while a pre-training goes on: nearest neighbours on a labelled folder."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import Normalizer

from simmim.config import Settings
from simmim.data import CentreCrop, LabelledDataConfig, Samples, Source, Statistics, evaluation_batches
from simmim.encoders.layers import Layers
from simmim.model import SimMIM
from simmim.tasks.labelled import open_labelled
from simmim.units import LabelShare

_BATCH = 64


class MonitorConfig(Settings, frozen=True):
    """A labelled folder that a pre-training is judged on now and then. It changes no result."""

    data: str | None = None
    """Labelled images: one sub-folder a class, a list file with labels, or the built-in set digits; none, no judging."""
    labels: LabelShare | None = None
    """How many of the training labels are used: "10 per class", "1 %", or all if not given."""
    neighbours: int = Field(default=20, ge=1)
    """How many nearest neighbours vote, weighted by their distance."""


class Monitor:
    """Judges an encoder by its nearest neighbours on images that are held out."""

    def __init__(self, config: MonitorConfig, model: SimMIM, statistics: Statistics, *, seed: int) -> None:
        self._model, self._statistics, self._neighbours = model, statistics, config.neighbours
        data = LabelledDataConfig(source=config.data, labels=config.labels)
        images = open_labelled(data, seed=seed)
        self._sides = [self._samples(source, data) for source in (images.training, images.held_out)]

    def _samples(self, source: Source, data: LabelledDataConfig) -> Samples:
        return Samples(
            source,
            view=CentreCrop(),
            size=self._model.encoder.image_size,
            channels=self._statistics.channels,
            seed=0,
            bad_share=data.bad_share,
            max_pixels=data.max_pixels,
        )

    def judge(self) -> dict[str, float]:
        """`knn_accuracy`: the share of the held-out images whose class their neighbours name."""
        was_training = self._model.training
        self._model.eval()
        (features, labels), (held_out, truth) = (self._encode(samples) for samples in self._sides)
        self._model.train(was_training)
        classifier: Any = KNeighborsClassifier(min(self._neighbours, len(labels)), weights="distance")
        unit: Any = Normalizer()
        classifier.fit(unit.transform(features), labels)
        return {"knn_accuracy": float(classifier.score(unit.transform(held_out), truth))}

    def _encode(self, samples: Samples) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        layers = Layers(self._model.encoder.backbone)
        (last,) = layers.places(layer=layers.depth, pooling="mean")
        device = next(self._model.parameters()).device
        features: list[NDArray[np.float32]] = []
        labels: list[NDArray[np.int64]] = []
        with torch.no_grad():
            for batch in evaluation_batches(samples, batch=_BATCH, workers=0):
                batch = batch.readable()
                if len(batch):
                    images = self._statistics.normalise(batch.images.to(device))
                    features.append(layers(images, [last])[last].float().cpu().numpy())
                    labels.append(batch.labels.numpy())
        return np.concatenate(features), np.concatenate(labels)
