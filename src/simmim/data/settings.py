"""The `data` block of a recipe."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from simmim.config import OneOf, Settings
from simmim.data.arranged import PagesAs, arrange
from simmim.data.augment import Appearance
from simmim.data.image import MAX_PIXELS
from simmim.data.samples import Samples
from simmim.data.source import Source
from simmim.data.transforms import CentreCrop, Interpolation, RandomCrop, View
from simmim.data.valid import Invalid
from simmim.units import ImageCount, ImageSize, LabelShare

PickedChannels = Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)]

AnyView = Annotated[View, OneOf((RandomCrop, CentreCrop))]
"""The views a recipe may choose from."""


class DataConfig(Settings, frozen=True):
    """Which images a run sees and how they are brought to one size."""

    source: str | None = None
    """A folder of any depth, a list file (.txt, .csv), tar or zip files, Parquet files, a saved Hugging Face data set, or
    the built-in set digits."""
    split: str | None = None
    """Which part of the data set: train, val or test, where it is divided so; all of it if not given."""
    image_size: ImageSize
    """Height and width of a training image: 192 px, or 96x160 px."""
    channels: Annotated[int, Field(ge=1)] | PickedChannels | None = None
    """Channels of a training image, or a list of those to pick, counted from 0: [3, 2, 1]; measured on the data if not
    given."""
    bands: tuple[str, ...] | None = Field(default=None, min_length=1)
    """Ends of file names, where the channels of an image lie in several files: [_B02.tif, _B03.tif]."""
    pages: PagesAs = "first"
    """What the pages of TIFF and DICOM files are: only the first counts, each is an image, or together the channels."""
    mean: tuple[float, ...] | None = None
    """Mean of each channel, 8-bit values divided by 255; measured on the data if not given."""
    std: tuple[float, ...] | None = None
    """Spread of each channel, in the same scale; measured on the data if not given."""
    invalid: Invalid | None = None
    """What marks a pixel as empty, so that it is neither hidden nor scored nor measured: black (areas at the border),
    alpha (transparent), nan, or a value as it stands in the file; nothing if not given."""
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
            lengths = {len(self.mean), len(self.std), self.channel_count or len(self.mean)}
            if len(lengths) > 1:
                raise ValueError(
                    f"data.mean has {len(self.mean)} numbers, data.std {len(self.std)}, and data.channels is "
                    f"{self.channel_count}; there must be one a channel, or null to have them measured"
                )
            if min(self.std) <= 0:
                raise ValueError(f"data.std={list(self.std)} must be larger than 0 in every channel")
        return self

    @property
    def channel_count(self) -> int | None:
        """How many channels an image has, where the settings say so."""
        return len(self.channels) if isinstance(self.channels, tuple) else self.channels

    def arranged(self, source: Source) -> Source:
        """The files of a source as the images they are: bands, pages and channels as set."""
        return arrange(
            source,
            bands=self.bands,
            pages=self.pages,
            channels=self.channels if isinstance(self.channels, tuple) else None,
        )

    def view_samples(self, source: Source, channels: int, *, seed: int, centred: bool = False) -> Samples:
        """The images of a source as training sees them, or `centred`: the middle of each, nothing random."""
        view = CentreCrop() if centred else self.view
        return Samples(
            source,
            view=view,
            size=self.image_size,
            channels=channels,
            seed=seed,
            bad_share=self.bad_share,
            max_pixels=self.max_pixels,
            appearance=Appearance(invalid=self.invalid),
        )


class LabelledDataConfig(Settings, frozen=True):
    """Labelled images for a task that follows pre-training; channels, mean and std are those of the encoder."""

    source: str | None = None
    """A folder with one sub-folder a class, or a list file, tar or zip files, Parquet files, or a saved Hugging Face data
    set with labels, or the built-in set digits."""
    image_size: ImageSize | None = None
    """Height and width of an image; that of the pre-training if not given."""
    channels: PickedChannels | None = None
    """Channels to pick, counted from 0, as in pre-training; all of them if not given."""
    bands: tuple[str, ...] | None = Field(default=None, min_length=1)
    """Ends of file names, where the channels of an image lie in several files: [_B02.tif, _B03.tif]."""
    pages: PagesAs = "first"
    """What the pages of TIFF and DICOM files are: only the first counts, each is an image, or together the channels."""
    invalid: Invalid | None = None
    """What marks a pixel as empty, so that it is shown as the mean; as in pre-training."""
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

    @model_validator(mode="after")
    def _empty_pixels_are_shown_plainly(self) -> Self:
        if self.invalid is not None and (self.interpolation != "bilinear" or self.evaluation.resize > 1):
            raise ValueError(
                "data.invalid works with data.interpolation=bilinear and data.evaluation.resize=1 only: what is empty must "
                "not run into what is beside it"
            )
        return self

    def arranged(self, source: Source) -> Source:
        """The files of a source as the images they are: bands, pages and channels as set."""
        return arrange(source, bands=self.bands, pages=self.pages, channels=self.channels)
