"""Squares of images: what is scored is gathered square by square, and nothing is computed for the others."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from simmim.shapes import Cells, Mask, SquareMaps
from simmim.units import Size


class Squares(NamedTuple):
    """The squares of a batch in which something is hidden; at least one, so that no part is asked about nothing."""

    numbers: Tensor
    """Their numbers, counted image by image and row by row (squares)."""

    @classmethod
    def of(cls, hidden: Mask, *, side: int) -> "Squares":
        """Those with a hidden token.

        Args:
            hidden: true where a token is hidden (batch, grid_h, grid_w).
            side: tokens a side of a square; it must divide the grid.
        """
        some = F.max_pool2d(hidden[:, None].float(), side).flatten() > 0
        numbers = some.nonzero()[:, 0]
        return cls(numbers if len(numbers) else numbers.new_zeros(1))

    def cells(self, images: int, grid: Size, *, side: int) -> Cells:
        """True in these squares, for images of `grid` squares with `side` cells a side each (batch, rows, columns)."""
        none = torch.zeros(images * grid[0] * grid[1], dtype=torch.bool, device=self.numbers.device)
        squares = none.index_fill(0, self.numbers, True).view(images, *grid)
        return squares.repeat_interleave(side, dim=1).repeat_interleave(side, dim=2)

    def take(self, maps: Tensor, grid: Size) -> SquareMaps:
        """These squares of maps.

        Args:
            maps: what covers the whole images at any resolution (batch, channels, rows, columns).
            grid: rows and columns of squares of one image.

        Returns:
            (squares, channels, rows of a square, columns of a square).
        """
        batch, channels, height, width = maps.shape
        rows, columns = height // grid[0], width // grid[1]
        cut = maps.reshape(batch, channels, grid[0], rows, grid[1], columns).permute(0, 2, 4, 1, 3, 5)
        return cut.reshape(-1, channels, rows, columns).index_select(0, self.numbers)


def one_above_the_other(maps: SquareMaps) -> Tensor:
    """Squares as one column (1, channels, squares * rows, columns), which convolutions are quicker with than with many maps."""
    return maps.transpose(0, 1).flatten(1, 2)[None]


def cut_apart(column: Tensor, squares: int) -> SquareMaps:
    """The squares of a column (1, channels, squares * rows, columns)."""
    _, channels, rows, columns = column.shape
    return column.reshape(channels, squares, rows // squares, columns).transpose(0, 1)
