"""Pixels as words of a palette: the nearest of K colours (paper, section 3.4; the palette of iGPT)."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from simmim import units
from simmim.config import Part
from simmim.shapes import Images, Originals, Prediction, Shown, TargetMap
from simmim.targets.distance import cross_entropy

_CELLS_AT_ONCE = 65536  # distances to every colour are held for so many cells


class ClusterTarget(Part, frozen=True):
    """Which colour of a palette each cell is nearest to, by cross-entropy."""

    kind: Literal["clusters"] = "clusters"
    centres: str
    """A .npy file of colours (K, channels): made by `simmim clusters`, or iGPT's own. Values from 0 to 1, 0 to 255, or -1
    to 1 as iGPT has them; which, is seen from the numbers."""
    stride: units.Pixels = Field(default=4, gt=0)
    """Pixels a side of one predicted cell; the paper classifies 48x48 cells of 192 px."""

    @property
    def reads(self) -> dict[str, Path]:
        """The files that decide the result, by the setting that names them."""
        return {"centres": Path(self.centres)}

    def build(self, *, mean: tuple[float, ...], std: tuple[float, ...]) -> "Clusters":
        """Make the target for images of these statistics."""
        return Clusters(read_centres(Path(self.centres), channels=len(mean)), mean, std, self.stride)


def read_centres(path: Path, *, channels: int) -> Tensor:
    """Colours (K, channels) in the scale 0 to 1.

    Raises:
        ValueError: where the file is not there, or holds no palette of so many channels.
    """
    if not path.is_file():
        raise ValueError(f"there is no palette {str(path)!r}; make one with: simmim clusters DATA --out {path}")
    centres = torch.from_numpy(np.load(path, allow_pickle=False)).float()
    if centres.ndim != 2 or centres.shape[1] != channels or len(centres) < 2:
        raise ValueError(f"{path} holds numbers of shape {tuple(centres.shape)}; a palette is (colours, {channels})")
    if centres.min() < 0:
        return (centres + 1) / 2
    return centres / 255 if centres.max() > 1 else centres


@dataclass(frozen=True)
class Clusters:
    """The number of the nearest colour (batch, 1, cells_h, cells_w); how near is measured between colours as they are."""

    centres: Tensor
    """Colours (K, channels), 0 to 1."""
    mean: tuple[float, ...]
    std: tuple[float, ...]
    stride: int

    @property
    def channels(self) -> int:
        """Scores of each cell."""
        return len(self.centres)

    @property
    def piece(self) -> int:
        """Pixels a side of what a cell is told from: its own."""
        return self.stride

    def __call__(self, images: Images) -> TargetMap:
        """The nearest colour of every cell, by squared Euclidean distance."""
        cells = images if self.stride == 1 else F.avg_pool2d(images, self.stride)
        mean, std, centres = (self._like(numbers, cells) for numbers in (self.mean, self.std, self.centres))
        colours = cells.permute(0, 2, 3, 1).reshape(-1, cells.shape[1]) * std + mean
        parts = (colours[begin : begin + _CELLS_AT_ONCE] for begin in range(0, len(colours), _CELLS_AT_ONCE))
        nearest = [torch.cdist(part, centres).argmin(dim=1) for part in parts]
        return torch.cat(nearest).view(cells.shape[0], 1, *cells.shape[2:])

    def distance(self, prediction: Prediction, target: TargetMap) -> Tensor:
        """The cross-entropy of every cell."""
        return cross_entropy(prediction, target)

    def to_images(self, prediction: Prediction, images: Originals) -> Shown:
        """The likeliest colour of each cell."""
        mean, std, centres = (self._like(numbers, prediction) for numbers in (self.mean, self.std, self.centres))
        return ((centres - mean) / std)[prediction.argmax(dim=1)].permute(0, 3, 1, 2)

    def from_images(self, shown: Images, images: Images) -> Prediction | None:
        """None: a guess without probabilities has no cross-entropy."""
        return None

    @staticmethod
    def _like(numbers: Tensor | tuple[float, ...], other: Tensor) -> Tensor:
        return torch.as_tensor(numbers, device=other.device)
