"""A palette of one's own images, for the colour-cluster target."""

from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import MiniBatchKMeans

from simmim.config import nearest
from simmim.data import Appearance, CentreCrop, Samples, Source, evaluation_batches, measure, open_source
from simmim.data.subset import Subset
from simmim.data.valid import Invalid
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


def fit_palette(
    data: str | Path, *, out: Path, colours: int = 512, seed: int = 0, invalid: Invalid | None = None
) -> Palette:
    """Fit colours to images by k-means (scikit-learn's, in mini batches) and write them as a .npy file, 0 to 1.

    Args:
        data: the images, of any kind of source.
        out: where the palette is written.
        colours: how many.
        seed: of the choice of pixels and of k-means.
        invalid: what marks a pixel as empty, as `data.invalid` of a recipe does; such pixels have no colour.

    Raises:
        ValueError: where there are fewer different pixels than colours.
    """
    pixels = _pixels(open_source(data), seed, invalid)
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


def read_invalid(word: str | None) -> Invalid | None:
    """What a person typed for empty pixels: one of three words, or a number as it stands in the files.

    Raises:
        ValueError: where it is neither.
    """
    words: dict[str, Invalid] = {"black": "black", "alpha": "alpha", "nan": "nan"}
    if word is None or word in words:
        return None if word is None else words[word]
    try:
        return float(word)
    except ValueError:
        raise ValueError(
            f"--invalid {word}: allowed are {', '.join(words)}, or a number{nearest(word, list(words))}"
        ) from None


def _pixels(source: Source, seed: int, invalid: Invalid | None) -> NDArray[np.float32]:
    """Valid pixels (number, channels) of images spread evenly over a source, 0 to 1."""
    chosen = np.unique(np.linspace(0, len(source) - 1, min(len(source), _IMAGES)).round().astype(np.int64))
    some = Subset(source, chosen)
    channels = measure(some, seed=seed, samples=len(chosen), invalid=invalid).channels
    appearance = Appearance(invalid=invalid)
    samples = Samples(some, view=CentreCrop(), size=(_SIDE, _SIDE), channels=channels, seed=seed, appearance=appearance)
    parts: list[NDArray[np.float32]] = []
    for batch in evaluation_batches(samples, batch=64, workers=0):
        batch = batch.readable()
        images = batch.images if batch.images.is_floating_point() else batch.images.float() / 255
        colours = images.permute(0, 2, 3, 1)
        parts.append((colours.flatten(0, 2) if batch.valid is None else colours[batch.valid]).numpy())
    pixels: NDArray[np.float32] = np.concatenate(parts)
    if len(pixels) > _PIXELS:
        pixels = pixels[stream(seed, "palette").choice(len(pixels), _PIXELS, replace=False)]
    return pixels
