"""How the files of a source become images: a file a channel, a page an image, only some of the channels."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from simmim.config import nearest
from simmim.data.image import MAX_PIXELS, ImageFile, UnreadableImage, oriented, tensor_of
from simmim.data.index import signs_of_life
from simmim.units import Size

if TYPE_CHECKING:
    from simmim.data.source import Source

PagesAs = Literal["first", "each", "channels"]
"""What the pages of a file are: only the first counts, each is an image, or together they are the channels of one."""

_PAGED = frozenset({".tif", ".tiff", ".dcm", ".dicom", ""})  # a row of a table has no suffix


@dataclass(frozen=True, kw_only=True)
class Arranged:
    """Images made of the files of another source, a source itself."""

    source: "Source"
    members: NDArray[np.int64]
    """The numbers of the files that each image is made of, (images, files)."""
    page: NDArray[np.int64] | None
    """The page that each image is, where pages are images."""
    stacked: bool
    """Whether the pages of a file are its channels."""
    picked: tuple[int, ...] | None
    """The channels that are kept, in this order."""
    problems: dict[str, str]

    def __len__(self) -> int:
        return len(self.members)

    @property
    def listed(self) -> int:
        """How many images there are, and files that are bad."""
        return len(self.members) + len(self.problems)

    def name(self, index: int) -> str:
        """The path of the first file, and the page."""
        name = self.source.name(int(self.members[index, 0]))
        return name if self.page is None else f"{name}, page {self.page[index] + 1}"

    def open(self, index: int, *, max_pixels: int = MAX_PIXELS) -> ImageFile:
        """Read the headers of the files of one image; raises `UnreadableImage`."""
        images = [self._open(int(number), index, max_pixels) for number in self.members[index]]
        image = images[0] if len(images) == 1 else _joined(images)
        return image if self.picked is None else _picked(image, self.picked)

    def _open(self, number: int, index: int, max_pixels: int) -> ImageFile:
        image = self.source.open(number, max_pixels=max_pixels)
        if image.stack is None or not (self.stacked or self.page is not None):
            return image
        stack = image.stack()
        if self.page is not None:
            return stack.page(int(self.page[index]))
        return image if stack.count == 1 else _joined([stack.page(number) for number in range(stack.count)])

    @property
    def fingerprint(self) -> str:
        """A digest that changes when the set changes."""
        pages = b"" if self.page is None else self.page.tobytes()
        text = repr((self.source.fingerprint, self.stacked, self.picked)).encode() + self.members.tobytes() + pages
        return hashlib.blake2b(text, digest_size=16).hexdigest()

    @property
    def labels(self) -> NDArray[np.int64] | None:
        """The class number of each image, that of its first file."""
        return None if self.source.labels is None else self.source.labels[self.members[:, 0]]

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes."""
        return self.source.classes


def arrange(
    source: "Source",
    *,
    bands: Sequence[str] | None = None,
    pages: PagesAs = "first",
    channels: Sequence[int] | None = None,
) -> "Source":
    """A source as its settings see it; the same object where they ask for nothing.

    Args:
        source: the files.
        bands: ends of file names, one a channel or more, in the order of the channels: what stands before is the image.
        pages: what the pages of TIFF and DICOM files are.
        channels: the channels that are kept, counted from 0.

    Raises:
        ValueError: where no image has all its bands.
    """
    if not bands and pages == "first" and channels is None:
        return source
    members, problems = _by_band(source, bands) if bands else (np.arange(len(source))[:, None], {})
    page: NDArray[np.int64] | None = None
    if pages == "each":
        counts = np.array(_count_pages(source, members[:, 0].tolist()), dtype=np.int64)
        members = members.repeat(counts, axis=0)
        page = np.concatenate([np.arange(int(count), dtype=np.int64) for count in counts])
    return Arranged(
        source=source,
        members=members,
        page=page,
        stacked=pages == "channels",
        picked=None if channels is None else tuple(channels),
        problems={**source.problems, **problems},
    )


def _by_band(source: "Source", bands: Sequence[str]) -> tuple[NDArray[np.int64], dict[str, str]]:
    found: dict[str, dict[str, int]] = {}
    longest_first = sorted(bands, key=len, reverse=True)
    for index in range(len(source)):
        name = source.name(index)
        band = next((end for end in longest_first if name.endswith(end)), None)
        if band is not None:
            found.setdefault(name.removesuffix(band), {})[band] = index
    missing = {stem: [band for band in bands if band not in files] for stem, files in found.items()}
    problems = {stem: f"has no file ending in {', '.join(names)}" for stem, names in missing.items() if names}
    whole = [[files[band] for band in bands] for stem, files in found.items() if not missing[stem]]
    if not whole:
        stem, reason = next(iter(problems.items()), ("no file", f"ends in one of {', '.join(bands)}"))
        close = nearest(bands[0], [PurePath(source.name(index)).name for index in range(min(len(source), 20))])
        raise ValueError(f"data.bands: no image has all its bands; {stem} {reason}{close}")
    return np.array(whole, dtype=np.int64), problems


def _count_pages(source: "Source", files: Iterable[int]) -> list[int]:
    counts: list[int] = []
    with signs_of_life("the pages of files") as tell:
        for number in files:
            counts.append(_pages_of(source, int(number)))
            tell(len(counts))
    return counts


def _pages_of(source: "Source", number: int) -> int:
    if PurePath(source.name(number)).suffix.lower() not in _PAGED:
        return 1
    try:
        stack = source.open(number).stack
        return 1 if stack is None else stack().count
    except (UnreadableImage, OSError):
        return 1  # it is found bad again, and named, when it is shown


def _joined(images: Sequence[ImageFile]) -> ImageFile:
    """Images of one size side by side as channels; one whose size is a whole part of the largest is repeated."""
    height, width = max(image.height for image in images), max(image.width for image in images)
    for image in images:
        if height % image.height or width % image.width:
            sizes = ", ".join(f"{each.height} x {each.width}" for each in images)
            raise UnreadableImage(f"has bands or pages of sizes that do not go together: {sizes}")

    def read(at_least: Size | None) -> NDArray[Any]:
        arrays = [_upright(image) for image in images]
        rows = [array.repeat(height // len(array), 0).repeat(width // array.shape[1], 1) for array in arrays]
        if len({array.dtype for array in rows}) > 1:
            # Each in the scale it would have alone; 8 bits as shares of 255.
            rows = [_as_float(array) for array in rows]
        return np.concatenate(rows, axis=2)

    return ImageFile(height=height, width=width, channels=sum(image.colours for image in images), read=read)


def _upright(image: ImageFile) -> NDArray[Any]:
    array = image.read(None)[:, :, : image.colours]
    if image.orientation == 1:
        return array
    # Marks and number types have to survive, so it is places and not values that are turned.
    places = np.arange(array.shape[0] * array.shape[1], dtype=np.float64).reshape(*array.shape[:2], 1)
    turned: NDArray[np.int64] = oriented(_tensor(places), image.orientation)[0].numpy().astype(np.int64)
    return array.reshape(-1, array.shape[2])[turned.ravel()].reshape(*turned.shape, -1)


def _tensor(places: NDArray[np.float64]) -> Any:
    import torch

    return torch.from_numpy(places).permute(2, 0, 1)  # pyright: ignore[reportUnknownMemberType]


def _as_float(array: NDArray[Any]) -> NDArray[np.float32]:
    values = tensor_of(array).permute(1, 2, 0).numpy()
    return values.astype(np.float32) / np.float32(255) if values.dtype == np.uint8 else values


def _picked(image: ImageFile, channels: tuple[int, ...]) -> ImageFile:
    if max(channels) >= image.channels:
        raise UnreadableImage(
            f"has {image.channels} channels, counted from 0, and data.channels asks for number {max(channels)}"
        )

    def read(at_least: Size | None) -> NDArray[Any]:
        return image.read(at_least)[:, :, list(channels)]

    return replace(image, channels=len(channels), alpha=False, read=read, stack=None)
