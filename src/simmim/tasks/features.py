"""Frozen features of a run's encoder: one pass over the images, at as many places as are asked for."""

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from simmim.data import Appearance, CentreCrop, LabelledDataConfig, Source, Statistics, evaluation_batches
from simmim.encoders.layers import Layers, Place
from simmim.engine.bar import bar
from simmim.engine.products import fast_products
from simmim.tasks.labelled import samples_of
from simmim.tasks.load import encoder_path, load_encoder
from simmim.weights import read_encoder

_log = logging.getLogger("simmim")


class Features(NamedTuple):
    """Features of the images of a source that could be read, in the order of the source."""

    at: dict[Place, NDArray[np.float32]]
    """(images, channels) at each place."""
    labels: NDArray[np.int64]
    indices: NDArray[np.int64]
    """Which images of the source they are."""
    problems: dict[str, str]
    """The images that are left out, path to reason."""


class FrozenEncoder:
    """The encoder of a run with the view and the normalisation it was trained for."""

    def __init__(self, run: str | Path) -> None:
        self.about = read_encoder(encoder_path(run))[1]
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.layers = Layers(load_encoder(run).to(self._device))

    def read(
        self, source: Source, places: Sequence[Place], *, data: LabelledDataConfig, batch: int = 64, workers: int = 0
    ) -> Features:
        """Encode the middle of every image. What is kept takes 4 bytes x images x channels of all places.

        Raises:
            ValueError: where that is more than this machine's memory, or no image can be read.
        """
        about = self.about
        statistics = Statistics(about.channels, about.mean, about.std, 0)
        samples = samples_of(data, about, source, view=CentreCrop(), appearance=Appearance(), seed=0)
        store: dict[Place, NDArray[np.float32]] = {}
        labels, indices, problems = list[NDArray[np.int64]](), list[NDArray[np.int64]](), dict(source.problems)
        done = 0
        with torch.no_grad(), fast_products(), bar("encoding", total=len(source)) as advance:
            for part in evaluation_batches(samples, batch=batch, workers=workers):
                advance(len(part))
                problems |= part.problems
                part = part.readable()
                if not len(part):
                    continue
                valid = None if part.valid is None else part.valid.to(self._device)
                pooled = self.layers(statistics.normalise(part.images.to(self._device), valid), places)
                store = store or _room(len(source), {place: one.shape[1] for place, one in pooled.items()})
                for place, one in pooled.items():
                    store[place][done : done + len(part)] = one.float().cpu().numpy()
                done += len(part)
                labels.append(part.labels.numpy())
                indices.append(part.indices.numpy())
        for path, reason in problems.items():
            _log.warning("%s is left out: %s", path, reason)
        if not done:
            raise ValueError("none of the images can be read, so there are no features")
        at = {place: one[:done] for place, one in store.items()}
        return Features(at, np.concatenate(labels), np.concatenate(indices), problems)


def _room(images: int, widths: dict[Place, int]) -> dict[Place, NDArray[np.float32]]:
    needed, there = 4 * images * sum(widths.values()), os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > there:
        raise ValueError(
            f"the features of {images} images at {len(widths)} places take {needed / 2**30:.1f} GiB and this machine has "
            f"{there / 2**30:.1f}; name one place with --layer and --pooling, or use fewer images (--labels '1 %')"
        )
    return {place: np.empty((images, width), dtype=np.float32) for place, width in widths.items()}
