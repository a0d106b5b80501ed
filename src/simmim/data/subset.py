"""Choose part of a source: every class in its proportion, the same choice every time."""

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from simmim.data.image import MAX_PIXELS, ImageFile
from simmim.seeds import stream
from simmim.units import LabelShare

if TYPE_CHECKING:
    from simmim.data.source import Source


@dataclass(frozen=True)
class Subset:
    """Some images of another source, in ascending order of their index there."""

    source: "Source"
    indices: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def listed(self) -> int:
        """How many files the whole set has, bad ones included: it is they of which a share may be bad."""
        return self.source.listed

    def name(self, index: int) -> str:
        """The path as a person sees it."""
        return self.source.name(int(self.indices[index]))

    def open(self, index: int, *, max_pixels: int = MAX_PIXELS) -> ImageFile:
        """Read the header of one image; raises `UnreadableImage`."""
        return self.source.open(int(self.indices[index]), max_pixels=max_pixels)

    @property
    def fingerprint(self) -> str:
        """A digest that changes when the set changes."""
        text = self.source.fingerprint.encode() + self.indices.tobytes()
        return hashlib.blake2b(text, digest_size=16).hexdigest()

    @property
    def labels(self) -> NDArray[np.int64] | None:
        """The class number of each image."""
        return None if self.source.labels is None else self.source.labels[self.indices]

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes; all of them, whether or not one was chosen."""
        return self.source.classes

    @property
    def problems(self) -> dict[str, str]:
        """The files found bad while the source was indexed."""
        return self.source.problems


def hold_out(source: "Source", share: float, seed: int) -> "tuple[Source, Source]":
    """Part a source in two, (the rest, the share held out), the same way for the same seed.

    With labels both parts have the classes in proportion. Raises `ValueError` unless both parts get an image.
    """
    count = round(len(source) * share)
    if not 0 < count < len(source):
        raise ValueError(
            f"holding out {share:g} of {len(source)} images leaves {len(source) - count} and {count}; "
            "both parts need at least one"
        )
    held = spread(count, labels=_labels(source), generator=stream(seed, "hold out"))
    rest = np.setdiff1d(np.arange(len(source)), held)
    return Subset(source, rest), Subset(source, held)


def choose_labels(source: "Source", share: LabelShare | None, seed: int) -> "Source":
    """Keep a share of a labelled source, the same for the same seed: "10 per class" or "1 %"; None keeps everything.

    A class with fewer images than asked for keeps all it has, and a percentage keeps at least one of each class.
    """
    if share is None:
        return source
    if source.labels is None:
        raise ValueError(f"a share of {share} can only be taken of a labelled source")
    whole = share.amount >= 1 and share.amount == int(share.amount)
    if not (whole if share.unit == "per class" else 0 < share.amount <= 100):
        raise ValueError(f"a share of {share} is not possible; allowed: a whole number per class, or up to 100 %")
    sizes = np.bincount(source.labels)
    if share.unit == "per class":
        counts = np.minimum(sizes, int(share.amount))
    else:
        counts = np.maximum(_apportion(sizes, round(len(source) * share.amount / 100)), np.minimum(sizes, 1))
    return Subset(source, _pick(source.labels, counts, stream(seed, "labels", str(share))))


def spread(count: int, *, labels: NDArray[np.int64], generator: np.random.Generator) -> NDArray[np.int64]:
    """Choose `count` indices at random with the classes in proportion; sorted."""
    return _pick(labels, _apportion(np.bincount(labels), count), generator)


def _labels(source: "Source") -> NDArray[np.int64]:
    return np.zeros(len(source), dtype=np.int64) if source.labels is None else source.labels


def _apportion(sizes: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Share out `count` seats in proportion to the sizes: whole parts first, then the largest remainders."""
    whole, remainder = np.divmod(sizes * count, sizes.sum())
    extra = np.argsort(-remainder, kind="stable")[: count - int(whole.sum())]
    whole[extra] += 1
    return whole


def _pick(labels: NDArray[np.int64], counts: NDArray[np.int64], generator: np.random.Generator) -> NDArray[np.int64]:
    members = np.split(np.argsort(labels, kind="stable"), np.cumsum(np.bincount(labels))[:-1])
    chosen = [generator.permutation(of_class)[:count] for of_class, count in zip(members, counts, strict=True)]
    return np.sort(np.concatenate(chosen))
