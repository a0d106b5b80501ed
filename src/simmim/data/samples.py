"""Samples of a source: the same one for the same seed, epoch and index, and a neighbour in place of a broken file."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import torch
from torch import Tensor
from torch.utils.data import Dataset

from simmim.data.augment import PLAIN, Appearance
from simmim.data.channels import check_channels, fit_channels
from simmim.data.image import MAX_PIXELS, UnreadableImage
from simmim.data.source import Source
from simmim.data.transforms import View
from simmim.seeds import seed_of, stream
from simmim.shapes import PixelMask, RawImages
from simmim.units import Size

SampleKey: TypeAlias = tuple[int, int]
"""Epoch, and index in the source."""

NO_LABEL = -1

_PATIENCE = 32  # unreadable files in a row that are always stepped over


@dataclass(frozen=True, slots=True)
class Sample:
    """One image as a training step sees it; `index` is the one asked for, `problems` the files stepped over."""

    pixels: Tensor
    index: int
    label: int
    problems: dict[str, str]
    valid: Tensor | None = None
    """True where a pixel is not empty (height, width); None where that is not asked."""


@dataclass(frozen=True)
class Batch:
    """Samples side by side; labels are -1 where there are none, `problems` are the files that were replaced."""

    images: RawImages
    labels: Tensor
    indices: Tensor
    problems: dict[str, str]
    replaced: Tensor
    """True where a neighbour stands in for a file that could not be read."""
    valid: PixelMask | None = None
    """True where a pixel is not empty; None where that is not asked."""

    def __len__(self) -> int:
        return len(self.images)

    def readable(self) -> "Batch":
        """The batch without the stand-ins: for judging, where each image counts once."""
        whole = ~self.replaced
        return replace(
            self,
            images=self.images[whole],
            labels=self.labels[whole],
            indices=self.indices[whole],
            replaced=self.replaced[whole],
            valid=None if self.valid is None else self.valid[whole],
        )

    def pin_memory(self) -> "Batch":
        """The same batch in page-locked memory; the data loader looks for this name."""
        return replace(
            self,
            images=self.images.pin_memory(),
            labels=self.labels.pin_memory(),
            indices=self.indices.pin_memory(),
            valid=None if self.valid is None else self.valid.pin_memory(),
        )


class Samples(Dataset[Sample]):
    """Images of a source under a view, at one size and number of channels.

    The key of a sample is (epoch, index). Crop, flip and augmentation depend on the seed and the key alone. A file that
    cannot be read is replaced by the next one that can, together with its label.
    """

    def __init__(
        self,
        source: Source,
        *,
        view: View,
        size: Size,
        channels: int,
        seed: int,
        bad_share: float = 0.05,
        max_pixels: int = MAX_PIXELS,
        appearance: Appearance = PLAIN,
    ) -> None:
        self.appearance = appearance
        self.source, self.view, self.size, self.channels, self.seed = source, view, size, channels, seed
        self.max_pixels = max_pixels
        self._labels = source.labels
        self._tries = min(len(source), 1 + max(_PATIENCE, math.floor(bad_share * len(source))))

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, key: SampleKey) -> Sample:
        epoch, index = key
        problems: dict[str, str] = {}
        for offset in range(self._tries):
            found = (index + offset) % len(self.source)
            try:
                pixels, valid = self._pixels(found, epoch=epoch, asked=index)
            except (UnreadableImage, OSError) as error:
                problems[self.source.name(found)] = str(error)
                continue
            label = NO_LABEL if self._labels is None else int(self._labels[found])
            return Sample(pixels, index, label, problems, valid)
        path, reason = next(iter(problems.items()))
        raise ValueError(
            f"{self._tries} files in a row cannot be read, so the data set is given up; the first: {path} {reason}"
        )

    def _pixels(self, found: int, *, epoch: int, asked: int) -> tuple[Tensor, Tensor | None]:
        image = self.source.open(found, max_pixels=self.max_pixels)
        check_channels(image, wanted=self.channels)  # before the work of decoding
        generator = stream(self.seed, "crop", epoch, asked)
        shown, valid = self.appearance.show(image, view=self.view, size=self.size, generator=generator)
        pixels = fit_channels(shown, channels=self.channels, alpha=image.alpha)
        if self.appearance.augment is not None:
            pixels = self.appearance.augment(pixels, seed=seed_of(self.seed, "augment", epoch, asked))
        return pixels, valid


def collate(samples: Sequence[Sample]) -> Batch:
    """Put samples side by side: uint8 if all of them are, otherwise float32 with the uint8 ones divided by 255."""
    pixels = [sample.pixels for sample in samples]
    if any(image.is_floating_point() for image in pixels):
        pixels = [image if image.is_floating_point() else image.float() / 255 for image in pixels]
    valid = [sample.valid for sample in samples if sample.valid is not None]
    return Batch(
        images=torch.stack(pixels),
        labels=torch.tensor([sample.label for sample in samples]),
        indices=torch.tensor([sample.index for sample in samples]),
        problems={path: reason for sample in samples for path, reason in sample.problems.items()},
        replaced=torch.tensor([bool(sample.problems) for sample in samples]),
        valid=torch.stack(valid) if valid else None,
    )
