"""A palette of one's own images, for the colour-cluster target."""

from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import MiniBatchKMeans

from simmim.data import CentreCrop, Samples, Source, evaluation_batches, measure, open_source
from simmim.data.subset import Subset
from simmim.files import write_atomically
from simmim.seeds import stream

_IMAGES, _SIDE = 1024, 64  # k-means sees so many images, this many pixels a side
_PIXELS = 400_000


class Palette(NamedTuple):
    """Where a palette lies, and how well it fits."""

    file: str
    colours: int
    distance: float
    """Root of the mean squared distance from a pixel to its colour, channels from 0 to 1."""


def fit_palette(data: str | Path, *, out: Path, colours: int = 512, seed: int = 0) -> Palette:
    """Fit colours to images by k-means (scikit-learn's, in mini batches) and write them as a .npy file, 0 to 1.

    Raises:
        ValueError: where there are fewer different pixels than colours.
    """
    pixels = _pixels(open_source(data), seed)
    different = len(np.unique(pixels, axis=0))
    if different < colours:
        raise ValueError(
            f"the images have {different} different colours, fewer than --colours {colours}; take {different}"
        )
    means = cast(Any, MiniBatchKMeans)(colours, random_state=seed, batch_size=8192, n_init=1).fit(pixels)
    centres: NDArray[np.float32] = means.cluster_centers_.astype(np.float32)

    def write(part: Path) -> None:
        with part.open("wb") as file:
            np.save(file, centres)

    write_atomically(out, write)
    return Palette(str(out), colours, float(np.sqrt(-means.score(pixels) / len(pixels))))


def _pixels(source: Source, seed: int) -> NDArray[np.float32]:
    """Pixels (number, channels) of images spread evenly over a source, 0 to 1."""
    chosen = np.unique(np.linspace(0, len(source) - 1, min(len(source), _IMAGES)).round().astype(np.int64))
    some = Subset(source, chosen)
    channels = measure(some, seed=seed, samples=len(chosen)).channels
    samples = Samples(some, view=CentreCrop(), size=(_SIDE, _SIDE), channels=channels, seed=seed)
    parts = [
        (batch.images if batch.images.is_floating_point() else batch.images.float() / 255).permute(0, 2, 3, 1).numpy()
        for batch in evaluation_batches(samples, batch=64, workers=0)
    ]
    pixels: NDArray[np.float32] = np.concatenate(parts).reshape(-1, channels)
    if len(pixels) > _PIXELS:
        pixels = pixels[stream(seed, "palette").choice(len(pixels), _PIXELS, replace=False)]
    return pixels
