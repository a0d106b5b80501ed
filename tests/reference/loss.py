"""The published loss, twice: as the official code has it, and cell by cell in float64 for targets of any stride."""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

ERRORS: dict[str, Callable[[Tensor], Tensor]] = {
    "l1": lambda d: d.abs(),
    "l2": lambda d: d**2,
    "smooth_l1": lambda d: torch.where(d.abs() < 1, d**2 / 2, d.abs() - 0.5),
}


def official_loss(images: Tensor, prediction: Tensor, mask: Tensor, *, patch_size: int, error: str = "l1") -> Tensor:
    """microsoft/SimMIM models/simmim.py, `SimMIM.forward`, for images of any number of channels."""
    pixels = mask.int().repeat_interleave(patch_size, 1).repeat_interleave(patch_size, 2).unsqueeze(1).contiguous()
    errors = ERRORS[error](images - prediction)
    return (errors * pixels).sum() / (pixels.sum() + 1e-5) / images.shape[1]


def mean_of_cells(values: NDArray[np.float64], side: int) -> NDArray[np.float64]:
    """The mean of every square of `side` values of the last two axes, one by one."""
    rows, columns = values.shape[-2] // side, values.shape[-1] // side
    cells = np.zeros((*values.shape[:-2], rows, columns))
    for row in range(rows):
        for column in range(columns):
            square = values[..., row * side : (row + 1) * side, column * side : (column + 1) * side]
            cells[..., row, column] = square.mean(axis=(-1, -2))
    return cells


def strided_loss(images: Tensor, prediction: Tensor, mask: Tensor, *, patch_size: int, stride: int) -> float:
    """L1 over cells of `stride` pixels a side, each counted by the share of its pixels that is hidden; float64, by hand."""
    target = mean_of_cells(images.double().numpy(), stride)
    pixels = np.kron(mask.numpy().astype(np.float64), np.ones((patch_size, patch_size)))
    weights = mean_of_cells(pixels, stride)
    total = count = 0.0
    for image in range(len(target)):
        for row, column in np.ndindex(*target.shape[2:]):
            error = np.abs(target[image, :, row, column] - prediction[image, :, row, column].double().numpy()).mean()
            total += weights[image, row, column] * error
            count += weights[image, row, column]
    return total / (count + 1e-5)
