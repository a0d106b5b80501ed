"""Distances between numbers, and between scores and classes."""

from typing import Literal

import torch.nn.functional as F
from torch import Tensor

Distance = Literal["l1", "l2", "smooth_l1"]

DISTANCES = {"l1": F.l1_loss, "l2": F.mse_loss, "smooth_l1": F.smooth_l1_loss}
"""Distances between numbers. Smooth L1 turns from square to straight at 1; the paper does not say where."""


def cross_entropy(scores: Tensor, classes: Tensor) -> Tensor:
    """The cross-entropy of every group of scores, in float32.

    Args:
        scores: (batch, groups * classes, cells_h, cells_w), the scores of a group next to each other.
        classes: the right ones (batch, groups, cells_h, cells_w).

    Returns:
        (batch, groups, cells_h, cells_w).
    """
    batch, groups, *cells = classes.shape
    by_class = scores.float().reshape(batch, groups, -1, *cells).transpose(1, 2)
    return F.cross_entropy(by_class, classes, reduction="none")
