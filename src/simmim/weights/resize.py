"""Weights of one size made to fit another: position bias tables, position embeddings, patch embeddings."""

from collections.abc import Sequence
from typing import Any, Literal, cast

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.interpolate import RectBivariateSpline, RegularGridInterpolator
from torch import Tensor

from simmim.units import Size

Rule = Literal["cubic", "linear"]
"""How a bias table is resampled: by the official code's bicubic spline, or linearly as timm does."""

_LEAST, _MOST, _CLOSE = 1.01, 1.5, 1e-6  # the bracket of the official search, and where it ends


def resize_table(table: Tensor, source: Size, wanted: Size, *, rule: Rule = "cubic", extra: int = 0) -> Tensor:
    """Resize a table of relative positions (rows * columns + extra, heads) on the official geometric grid.

    The places of the source are taken to lie apart by 1, q, q^2, ... from the middle, such that its border falls on that
    of the target; between them a bicubic spline, or straight lines. (Official file: utils.py of microsoft/SimMIM.)

    Args:
        table: one row a relative position, then the extra ones; one column a head.
        source: rows and columns of the source, 2 * window - 1 each.
        wanted: rows and columns of the target.
        rule: "cubic" as the official code, "linear" as timm.
        extra: rows at the end for the class token; they are kept as they are.
    """
    if source == wanted:
        return table
    places, kept = table[: len(table) - extra], table[len(table) - extra :]
    grid = places.detach().double().reshape(*source, -1).numpy()
    rows, columns = (_places(of, to) for of, to in zip(source, wanted, strict=True))
    heads = [_resample(grid[:, :, head], rows, columns, wanted, rule) for head in range(grid.shape[2])]
    resized = torch.from_numpy(np.stack(heads, axis=2)).reshape(-1, grid.shape[2]).to(table.dtype)
    return torch.cat((resized, kept))


def _resample(
    grid: NDArray[np.float64], rows: NDArray[np.float64], columns: NDArray[np.float64], wanted: Size, rule: Rule
) -> NDArray[np.float64]:
    """One head on the integers around the middle; beyond the source's border its value is that of the border."""
    at = [_integers(side).clip(places[0], places[-1]) for side, places in zip(wanted, (rows, columns), strict=True)]
    if rule == "linear" or min(grid.shape) < 4:  # a cubic needs four points
        between = RegularGridInterpolator((rows, columns), grid)
        return cast(Any, between)(np.stack(np.meshgrid(*at, indexing="ij"), axis=-1))
    return cast(Any, RectBivariateSpline(rows, columns, grid, kx=3, ky=3, s=0))(*at)


def _integers(side: int) -> NDArray[np.float64]:
    return np.arange(-(side // 2), side // 2 + 1, dtype=np.float64)


def _places(source: int, wanted: int) -> NDArray[np.float64]:
    """Where the places of the source lie, in steps of the target."""
    ratio, low, high = _LEAST, _LEAST, _MOST
    half = source // 2
    while high - low > _CLOSE:
        ratio = (low + high) / 2
        low, high = (low, ratio) if (1 - ratio**half) / (1 - ratio) > wanted // 2 else (ratio, high)
    distances = np.cumsum(ratio ** np.arange(half))
    return np.concatenate((-distances[::-1], [0.0], distances))


def resize_positions(positions: Tensor, source: Size, wanted: Size) -> Tensor:
    """Resize position embeddings (1, prefix + rows * columns, channels): bicubic, antialiased; a prefix is kept."""
    prefix = positions.shape[1] - source[0] * source[1]
    grid = positions[:, prefix:].float().reshape(1, *source, -1).permute(0, 3, 1, 2)
    resized = F.interpolate(grid, size=wanted, mode="bicubic", antialias=True, align_corners=False)
    flat = resized.permute(0, 2, 3, 1).flatten(1, 2).to(positions.dtype)
    return torch.cat((positions[:, :prefix], flat), dim=1)


def fit_input_channels(weight: Tensor, channels: int) -> Tensor:
    """Make a patch embedding (out, in, height, width) take another number of channels.

    Its filters are repeated in turn and scaled by old / new, so that equal channels give what they gave before; for one
    channel they are summed.
    """
    before = weight.shape[1]
    if channels == 1:
        return weight.sum(dim=1, keepdim=True)
    return weight[:, [channel % before for channel in range(channels)]] * (before / channels)


def fit_output_channels(tensor: Tensor, before: int, channels: int) -> Tensor:
    """Make a linear head (channels * cells, ...) predict another number of channels: they are repeated in turn."""
    by_channel = tensor.reshape(before, -1, *tensor.shape[1:])
    return by_channel[[channel % before for channel in range(channels)]].flatten(0, 1)


def fit_numbers(numbers: Sequence[float], channels: int) -> tuple[float, ...]:
    """One number a channel, repeated in turn; for a single channel their mean."""
    if channels == 1:
        return (sum(numbers) / len(numbers),)
    return tuple(numbers[channel % len(numbers)] for channel in range(channels))
