"""Three ways to fill holes without having learned anything: what a loss has to beat."""

from collections.abc import Callable
from typing import Any, TypeAlias, cast

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.interpolate import LinearNDInterpolator  # pyright: ignore[reportUnknownVariableType]
from scipy.ndimage import distance_transform_edt  # pyright: ignore[reportUnknownVariableType]
from torch import Tensor

from simmim.shapes import Images, PixelMask

Pixels: TypeAlias = NDArray[np.floating[Any]]
Filling = Callable[[Pixels, NDArray[np.bool_]], Pixels]


def mean_colour(pixels: Pixels, hidden: NDArray[np.bool_]) -> Pixels:
    """The mean of the visible pixels, everywhere (channels, height, width)."""
    return np.broadcast_to(pixels[:, ~hidden].mean(axis=1)[:, None, None], pixels.shape)


def nearest_pixel(pixels: Pixels, hidden: NDArray[np.bool_]) -> Pixels:
    """The visible pixel that is nearest."""
    transform = cast(Any, distance_transform_edt)  # scipy says no types
    rows, columns = transform(hidden, return_distances=False, return_indices=True)
    return pixels[:, rows, columns]


def smooth(pixels: Pixels, hidden: NDArray[np.bool_]) -> Pixels:
    """Linear interpolation between the visible pixels; the nearest one where there is none on some side."""
    nearest = nearest_pixel(pixels, hidden)
    visible = np.argwhere(~hidden)
    if np.ptp(visible, axis=0).min() == 0:  # a line of pixels spans no triangle
        return nearest
    # Squares of pixels can be cut along either diagonal, and rounding chooses: counted from the first visible row and
    # column it chooses the same, whatever empty border lies around them.
    origin = visible.min(axis=0)
    interpolate = cast(Any, LinearNDInterpolator)(visible - origin, pixels[:, ~hidden].T)
    between: Pixels = interpolate(np.argwhere(hidden) - origin).T
    filled = pixels.copy()
    filled[:, hidden] = np.where(np.isnan(between), nearest[:, hidden], between)
    return filled


FILLINGS: dict[str, Filling] = {"mean_colour": mean_colour, "nearest_pixel": nearest_pixel, "smooth": smooth}


def fill(images: Images, hidden: PixelMask, filling: Filling) -> Images:
    """The images with their holes filled; what is visible stays as it is."""
    filled = [
        torch.from_numpy(np.ascontiguousarray(filling(image, mask), dtype=np.float32))
        for image, mask in zip(_array(images), _array(hidden), strict=True)
    ]
    return torch.where(hidden[:, None], torch.stack(filled).to(images.device), images)


def _array(tensor: Tensor) -> NDArray[Any]:
    return tensor.cpu().numpy()
