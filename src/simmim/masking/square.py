"""One square region at a random place (the paper's section 3.2, after the central region of inpainting)."""

import math
from typing import Literal

import torch
from pydantic import Field

from simmim.config import Part
from simmim.masking.cells import grid_of_cells, to_tokens
from simmim.shapes import Mask
from simmim.units import Pixels, Size


class SquareMasking(Part, frozen=True):
    """Hide one square, moved at random within the image; the same size in every image.

    Its side is sqrt(N * ratio) of N cells, rounded to the nearest whole number of cells: at 192 px and 32-px cells, the
    ratios 0.11, 0.25 and 0.44 are the paper's squares of 64, 96 and 128 px.
    """

    kind: Literal["square"] = "square"
    ratio: float = Field(default=0.25, gt=0, lt=1)
    """Share of the image that the square covers, between 0 and 1."""
    mask_patch: Pixels = Field(default=32, gt=0)
    """Pixels a side of a cell; the square is a whole number of them. A multiple of the model patch."""
    aligned: bool = True
    """Whether the square lies on the grid of cells, or at any token."""

    def __call__(self, batch: int, *, image_size: Size, patch_size: int, generator: torch.Generator) -> Mask:
        """Draw the masks; see `simmim.masking.Masking`."""
        rows, columns = grid_of_cells(image_size, mask_patch=self.mask_patch, patch_size=patch_size)
        side = self._side(rows, columns)
        tokens_a_cell = self.mask_patch // patch_size
        if not self.aligned:
            rows, columns, side = rows * tokens_a_cell, columns * tokens_a_cell, side * tokens_a_cell
        top = torch.randint(rows - side + 1, (batch, 1, 1), generator=generator, device=generator.device)
        left = torch.randint(columns - side + 1, (batch, 1, 1), generator=generator, device=generator.device)
        row = torch.arange(rows, device=generator.device).view(1, -1, 1)
        column = torch.arange(columns, device=generator.device).view(1, 1, -1)
        square = (row >= top) & (row < top + side) & (column >= left) & (column < left + side)
        return to_tokens(square, tokens_a_cell) if self.aligned else square

    def _side(self, rows: int, columns: int) -> int:
        side = max(round(math.sqrt(rows * columns * self.ratio)), 1)
        if side > min(rows, columns) or side * side == rows * columns:
            most = min(rows, columns) - (rows == columns)
            raise ValueError(
                f"masking.ratio={self.ratio:g} is a square of {side}x{side} cells of {self.mask_patch} px, and the image has "
                f"{rows}x{columns} of them; something must stay visible: at most {most * most / (rows * columns):.2f}"
            )
        return side
