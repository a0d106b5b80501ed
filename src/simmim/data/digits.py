"""The built-in set: 1797 handwritten digits of 8 x 8 pixels that come with scikit-learn. For tests and first steps."""

import hashlib
from dataclasses import dataclass, field
from typing import cast

import numpy as np
from numpy.typing import NDArray

from simmim.config import nearest
from simmim.data.array import array_image
from simmim.data.image import MAX_PIXELS, ImageFile, check_size
from simmim.data.subset import spread
from simmim.seeds import stream

_SPLITS = ("train", "val", "test", "all")
_TEST_IMAGES = 797
_LEVELS = 16  # scikit-learn's digits are whole numbers from 0 to 16


@dataclass(frozen=True, kw_only=True)
class Digits:
    """Images held in memory, a source (see `simmim.data.source.Source`)."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    numbers: NDArray[np.int64]
    classes: tuple[str, ...] = tuple("0123456789")
    problems: dict[str, str] = field(default_factory=dict[str, str])

    def __len__(self) -> int:
        return len(self.images)

    @property
    def listed(self) -> int:
        """How many images the set has."""
        return len(self.images)

    def name(self, index: int) -> str:
        """The number of the image in scikit-learn's set."""
        return f"digits/{self.numbers[index]:04d}"

    def open(self, index: int, *, max_pixels: int = MAX_PIXELS) -> ImageFile:
        """One image as a file that is already read."""
        image = array_image(self.images[index, :, :, None])
        check_size(image.height, image.width, max_pixels=max_pixels)
        return image

    @property
    def fingerprint(self) -> str:
        """A digest that changes when the set changes."""
        return hashlib.blake2b(self.images.tobytes() + self.labels.tobytes(), digest_size=16).hexdigest()


def open_digits(split: str | None = None) -> Digits:
    """The digits, 8-bit grey: split "train" (1000 images), "test" (797) or "all", the default; "val" means "test".

    The splits are always the same, with the classes in equal proportions.
    """
    split = "test" if split == "val" else split or "all"
    if split not in _SPLITS:
        raise ValueError(f"digits has no split {split!r}; allowed: {', '.join(_SPLITS)}{nearest(split, _SPLITS)}")
    from sklearn.datasets import load_digits  # pyright: ignore[reportMissingTypeStubs, reportUnknownVariableType]

    images, labels = cast("tuple[NDArray[np.float64], NDArray[np.int64]]", load_digits(return_X_y=True))
    images = np.rint(images.reshape(-1, 8, 8) * (255 / _LEVELS)).astype(np.uint8)
    labels = labels.astype(np.int64)
    numbers = np.arange(len(labels))
    if split != "all":
        test = spread(_TEST_IMAGES, labels=labels, generator=stream(0, "digits", "test"))
        numbers = test if split == "test" else np.setdiff1d(numbers, test)
    return Digits(images=images[numbers], labels=labels[numbers], numbers=numbers)
