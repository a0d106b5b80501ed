"""The official mask generator (data/data_simmim.py), with the product of cells and ratio taken as exact."""

from fractions import Fraction
from math import ceil

import numpy as np
from numpy.typing import NDArray


def hidden_cells(cells: int, ratio: str) -> int:
    """How many cells a ratio, written as a decimal fraction, hides."""
    return ceil(cells * Fraction(ratio))


def cells_of(mask: NDArray[np.bool_], tokens_a_cell: int) -> NDArray[np.bool_]:
    """The grid of cells a token mask was made of; an error where a cell is hidden in part."""
    rows, columns = (side // tokens_a_cell for side in mask.shape)
    cells = mask.reshape(rows, tokens_a_cell, columns, tokens_a_cell).sum(axis=(1, 3))
    assert set(np.unique(cells)) <= {0, tokens_a_cell**2}, "a cell is hidden in part"
    return cells > 0
