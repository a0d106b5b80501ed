"""Look at some images of a data set: what their headers say, and what their pixels do."""

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from simmim.data import SUFFIXES, DataConfig, ImageFile, Source, UnreadableImage
from simmim.data.valid import Invalid, pixels_and_valid
from simmim.seeds import stream

_LOOKED_AT = 256  # pixels a side at which pixels are judged
_DARK = 0.02  # of the brightest value: what counts as black
_KINDS = {
    "JPEG": "jpeg jpg jpe jfif",
    "PNG": "png",
    "WEBP": "webp",
    "TIFF": "tif tiff",
    "BMP": "bmp dib",
    "GIF": "gif",
} | {"DICOM": "dcm dicom"}


@dataclass(frozen=True)
class Look:
    """One readable image."""

    name: str
    format: str
    named_right: bool
    """Whether the name's ending fits the content."""
    mode: str
    """Pillow's word for how the colours are written; empty where Pillow was not asked."""
    height: int
    width: int
    colours: int
    alpha: bool
    """Whether it has transparency that the settings leave out of account."""
    orientation: int
    depth: str
    """Number type of the stored values, such as uint8."""
    range_used: float
    """Largest value by the largest of the type; 1 for floats."""
    spread: float
    """Largest difference of two pixels of a channel, in the same scale."""
    border: float
    """Share of the picture that is black rows and columns at its edges; 0 where the settings say what is empty."""
    pages: int
    """Pages of the file, of which this is one."""
    thumbnail: NDArray[np.float32]
    """9 x 9 grey."""
    digest: bytes


@dataclass(frozen=True)
class Sampled:
    """What was looked at."""

    looks: list[Look]
    failures: dict[str, str]
    """Path to reason, of the files that cannot be read."""
    asked: int
    """How many files that was, bad ones included."""
    seed: int
    seconds: float = 0.0
    """How long that took."""


def choose(count: int, samples: int, seed: int) -> list[int]:
    """Positions spread evenly, each with its neighbour: copies and frames of a video lie side by side."""
    if count <= samples:
        return list(range(count))
    pairs = samples // 2
    start = stream(seed, "doctor").random()
    first = [int((position + start) * count / pairs) for position in range(pairs)]
    return sorted({index for one in first for index in (one, min(one + 1, count - 1))})


def look_at(
    source: Source,
    data: DataConfig,
    *,
    samples: int,
    seed: int,
    seconds: float,
    tell: Callable[[int, int], None] = lambda done, total: None,
) -> Sampled:
    """Open and decode a sample of a source as its settings say, in random order, and stop when the time is up."""
    chosen = choose(len(source), samples, seed)
    order = stream(seed, "doctor", "order").permutation(len(chosen) // 2 + 1)
    chosen = [index for pair in order for index in chosen[2 * pair : 2 * pair + 2]]
    looks, failures, begin = list[Look](), dict[str, str](), time.monotonic()
    for done, index in enumerate(chosen, 1):
        name = source.name(index)
        try:
            looks.append(_look(name, source.open(index, max_pixels=data.max_pixels), data.invalid))
        except (UnreadableImage, OSError) as error:
            failures[name] = str(error)
        tell(done, len(chosen))
        if time.monotonic() - begin > seconds:
            break
    return Sampled(looks, failures, len(looks) + len(failures), seed, time.monotonic() - begin)


def _look(name: str, image: ImageFile, invalid: Invalid | None) -> Look:
    file = Path(name.partition(", page ")[0])
    kind = image.format
    shrink = min(1.0, _LOOKED_AT / max(image.height, image.width))
    size = max(1, round(image.height * shrink)), max(1, round(image.width * shrink))
    pixels, valid = (image.pixels(size), None) if invalid is None else pixels_and_valid(image, size, invalid=invalid)
    depth = "uint8" if pixels.dtype == torch.uint8 else str(image.read(None).dtype)
    values = pixels.float() / (255 if depth == "uint8" else 1)
    values = values[:-1] if image.alpha else values
    flat = values.flatten(start_dim=1) if valid is None or not valid.any() else values[:, valid]
    suffix = file.suffix.lower()
    grey = F.adaptive_avg_pool2d(values.mean(dim=0)[None, None], 9)[0, 0]
    return Look(
        name=name,
        format=kind or suffix.removeprefix(".").upper(),
        named_right=not (kind and suffix in SUFFIXES) or suffix[1:] in _KINDS.get(kind, kind.lower()).split(),
        mode=_mode(file, kind),
        height=image.height,
        width=image.width,
        colours=image.colours,
        alpha=image.alpha and invalid != "alpha",
        orientation=image.orientation,
        depth=depth,
        range_used=float(flat.max()) if depth in ("uint8", "uint16") else 1.0,
        spread=float((flat.max(dim=1).values - flat.min(dim=1).values).max()),
        border=_border(values) if invalid is None else 0.0,
        pages=1 if image.stack is None else image.stack().count,
        thumbnail=grey.numpy(),
        digest=hashlib.blake2b(pixels.contiguous().numpy().tobytes(), digest_size=16).digest(),
    )


def _mode(path: Path, kind: str) -> str:
    """Pillow's mode of a file of its own; empty for what lies in an archive or in memory, or is an array."""
    if kind in ("", "NPY", "TIFF", "DICOM") or not path.is_file():
        return ""
    with Image.open(path) as image:  # the header alone
        return image.mode


def _border(values: Tensor) -> float:
    """The black frame's share of the area; a picture that is black altogether has none."""
    bright: Any = (values > _DARK * max(float(values.max()), 1e-12)).any(dim=0)
    rows, columns = bright.any(dim=1).nonzero(), bright.any(dim=0).nonzero()
    if not len(rows):
        return 0.0
    inside = int(rows[-1] - rows[0] + 1) * int(columns[-1] - columns[0] + 1)
    return 1 - inside / bright.numel()
