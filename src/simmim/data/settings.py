"""The `data` block of a recipe."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from simmim.config import OneOf, Settings
from simmim.data.image import MAX_PIXELS
from simmim.data.samples import Samples
from simmim.data.source import Source
from simmim.data.transforms import CentreCrop, Interpolation, RandomCrop, View
from simmim.units import ImageCount, ImageSize, LabelShare

AnyView = Annotated[View, OneOf((RandomCrop, CentreCrop))]
"""The views a recipe may choose from."""


class DataConfig(Settings, frozen=True):
    """Which images a run sees and how they are brought to one size."""

    source: str | None = None
    """A folder of any depth, a list file (.txt, .csv), or the built-in set digits."""
    split: str | None = None
    """Which part of the data set: train, val or test, where it is divided so; all of it if not given."""
    image_size: ImageSize
    """Height and width of a training image: 192 px, or 96x160 px."""
    channels: int | None = Field(default=None, ge=1)
    """Channels of a training image; measured on the data if not given."""
    mean: tuple[float, ...] | None = None
    """Mean of each channel, 8-bit values divided by 255; measured on the data if not given."""
    std: tuple[float, ...] | None = None
    """Spread of each channel, in the same scale; measured on the data if not given."""
    view: AnyView = RandomCrop()
    """Which part of an image a sample shows."""
    held_out: ImageCount = Field(default=0, ge=0)
    """Images that are not trained on; pictures and losses of the fixed images are theirs."""
    bad_share: float = Field(default=0.05, ge=0, le=1)
    """Share of the files that may be unreadable before the run stops."""
    max_pixels: int = Field(default=MAX_PIXELS, ge=1)
    """Height times width above which a file is refused as a decompression bomb."""

    @model_validator(mode="after")
    def _numbers_go_together(self) -> Self:
        if (self.mean is None) != (self.std is None):
            raise ValueError("data.mean and data.std go together; give both, or neither to have them measured")
        if self.mean is not None and self.std is not None:
            lengths = {len(self.mean), len(self.std), self.channels or len(self.mean)}
            if len(lengths) > 1:
                raise ValueError(
                    f"data.mean has {len(self.mean)} numbers, data.std {len(self.std)}, and data.channels is "
                    f"{self.channels}; there must be one a channel, or null to have them measured"
                )
            if min(self.std) <= 0:
                raise ValueError(f"data.std={list(self.std)} must be larger than 0 in every channel")
        return self

    def view_samples(self, source: Source, channels: int, *, seed: int, centred: bool = False) -> Samples:
        """The images of a source as training sees them, or `centred`: the middle of each, nothing random."""
        view = CentreCrop() if centred else self.view
        size, bad_share, max_pixels = self.image_size, self.bad_share, self.max_pixels
        return Samples(
            source, view=view, size=size, channels=channels, seed=seed, bad_share=bad_share, max_pixels=max_pixels
        )


class LabelledDataConfig(Settings, frozen=True):
    """Labelled images for a task that follows pre-training; channels, mean and std are those of the encoder."""

    source: str | None = None
    """A folder with one sub-folder a class, a list file with labels, or the built-in set digits."""
    image_size: ImageSize | None = None
    """Height and width of an image; that of the pre-training if not given."""
    view: AnyView = RandomCrop()
    """Which part of an image a training sample shows."""
    evaluation: CentreCrop = CentreCrop()
    """Which part of an image is judged."""
    interpolation: Interpolation = "bilinear"
    """How images are resized, for training and for judging."""
    labels: LabelShare | None = None
    """How many of the training labels are used: "10 per class", "1 %", or all if not given."""
    held_out: float = Field(default=0.2, gt=0, lt=1)
    """Share of the images that is kept for judging, where the data set has no val or test part of its own."""
    bad_share: float = Field(default=0.05, ge=0, le=1)
    """Share of the files that may be unreadable before the run stops."""
    max_pixels: int = Field(default=MAX_PIXELS, ge=1)
    """Height times width above which a file is refused as a decompression bomb."""
