"""AvgDist: how far a hidden pixel is from what can be seen, the paper's label-free predictor of quality (section 4.1.2)."""

import functools
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt  # pyright: ignore[reportUnknownVariableType]

from simmim.shapes import Mask, PixelMask
from simmim.units import Size

_FEW_TOKENS = 64  # up to here the distance to each single token is kept, and that to a set of them is their minimum


def average_distance(mask: Mask, *, patch_size: int, valid: PixelMask | None = None) -> float:
    """The mean distance in pixels from a hidden pixel to the nearest visible one, averaged over the masks of a batch.

    Distances are Euclidean, between the centres of pixels, and exact.

    Args:
        mask: true where a token is hidden (batch, grid_h, grid_w).
        patch_size: pixels a side of one token.
        valid: true where a pixel is not empty (batch, height, width): only there it is hidden or visible.

    Raises:
        ValueError: where a mask hides nothing or everything: the distance is not defined.
    """
    if valid is not None:
        return _distance_of_valid(mask, valid, patch_size)
    means: list[float] = []
    for tokens in cast(NDArray[np.bool_], mask.cpu().numpy()):
        if tokens.all() or not tokens.any():
            raise ValueError(f"a mask that hides {'everything' if tokens.all() else 'nothing'} has no AvgDist")
        few = tokens.size <= _FEW_TOKENS < len(mask)
        distance = _nearest_of(~tokens, patch_size) if few else _transform(_to_pixels(tokens, patch_size))
        # It is zero at every visible pixel, so the sum is that over the hidden ones.
        means.append(float(distance.sum(dtype=np.float64)) / (np.count_nonzero(tokens) * patch_size**2))
    return float(np.mean(means))


def _distance_of_valid(mask: Mask, valid: PixelMask, patch_size: int) -> float:
    means: list[float] = []
    maps = cast("tuple[NDArray[np.bool_], NDArray[np.bool_]]", (mask.cpu().numpy(), valid.cpu().numpy()))
    for tokens, known in zip(*maps, strict=True):
        pixels = _to_pixels(tokens, patch_size)
        hidden, visible = pixels & known, ~pixels & known
        if not hidden.any() or not visible.any():
            raise ValueError(
                f"a mask that hides {'nothing' if visible.any() else 'everything'} that is valid has no AvgDist"
            )
        means.append(float(_transform(~visible)[hidden].mean(dtype=np.float64)))
    return float(np.mean(means))


def _to_pixels(tokens: NDArray[np.bool_], patch_size: int) -> NDArray[np.bool_]:
    return tokens.repeat(patch_size, axis=0).repeat(patch_size, axis=1)


def _transform(hidden: NDArray[np.bool_]) -> NDArray[np.floating[Any]]:
    """The distance of every hidden pixel to the nearest visible one, and zero at the visible ones."""
    return cast("NDArray[np.floating[Any]]", distance_transform_edt(hidden))


def _nearest_of(visible: NDArray[np.bool_], patch_size: int) -> NDArray[np.floating[Any]]:
    to_each = _to_each_token((visible.shape[0], visible.shape[1]), patch_size)
    first, *others = np.flatnonzero(visible)
    nearest = to_each[first].copy()
    for token in others:
        np.minimum(nearest, to_each[token], out=nearest)
    return nearest


@functools.lru_cache(maxsize=4)
def _to_each_token(grid: Size, patch_size: int) -> list[NDArray[np.floating[Any]]]:
    """The distance of every pixel to each token, were it the only one visible."""
    alone = ~np.eye(grid[0] * grid[1], dtype=np.bool_).reshape(-1, *grid)
    return [_transform(_to_pixels(tokens, patch_size)).astype(np.float32) for tokens in alone]
