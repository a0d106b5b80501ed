"""Block-wise masking after BEiT (arXiv 2106.08254): rectangles are added until enough is hidden."""

import math
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from simmim.config import Part
from simmim.masking.cells import grid_of_cells, hidden_count, to_tokens
from simmim.shapes import Cells, Mask
from simmim.units import Pixels, Size

_TRIES = 10  # places tried for a rectangle, as in unilm's beit/masking_generator.py
_FLATTEST = 0.3  # the aspect ratio lies between this and its inverse


class BlockMasking(Part, frozen=True):
    """Hide rectangles of random place, size and aspect, ceil(N * ratio) of N cells in all.

    Each rectangle has an area drawn evenly between `min_block` and what is still to be hidden, and an aspect drawn evenly in
    logarithm between 0.3 and 1/0.3. Where ten of them in a row do not fit, BEiT's generator gives up and hides fewer cells
    than asked; here the hidden region grows at its border until the count is right. (The paper does not give its smallest
    block; BEiT's is 16 cells of 16 px, that is 64 px a side.)
    """

    kind: Literal["block"] = "block"
    ratio: float = Field(default=0.6, gt=0, lt=1)
    """Share of the cells that are hidden, between 0 and 1."""
    mask_patch: Pixels = Field(default=16, gt=0)
    """Pixels a side of a cell; a multiple of the model patch."""
    min_block: Pixels = Field(default=32, gt=0)
    """Side of the square that has the area of the smallest rectangle."""
    exact: bool = True
    """Whether the count is exact in every image; false gives up where BEiT's generator does."""

    def __call__(self, batch: int, *, image_size: Size, patch_size: int, generator: torch.Generator) -> Mask:
        """Draw the masks; see `simmim.masking.Masking`."""
        rows, columns = grid_of_cells(image_size, mask_patch=self.mask_patch, patch_size=patch_size)
        hidden = hidden_count(rows * columns, self.ratio, mask_patch=self.mask_patch)
        cells = torch.zeros(batch, rows, columns, dtype=torch.bool, device=generator.device)
        cells = self._add_rectangles(cells, hidden, generator)
        if self.exact:
            cells = _grow(cells, hidden, generator)
        return to_tokens(cells, self.mask_patch // patch_size)

    def _add_rectangles(self, cells: Cells, hidden: int, generator: torch.Generator) -> Cells:
        """Try one rectangle in every image at a time; an image rests when it is full or ten tries in a row failed."""
        smallest = (self.min_block / self.mask_patch) ** 2
        finished, numbers = cells.clone(), torch.arange(len(cells), device=cells.device)
        failures = torch.zeros(len(cells), dtype=torch.long, device=cells.device)
        while len(numbers):
            missing = hidden - cells.flatten(1).sum(dim=1)
            rectangle = _rectangles(cells, smallest, missing, generator)
            new = (rectangle & ~cells).flatten(1).sum(dim=1)
            fits = (new > 0) & (new <= missing)
            cells = cells | (rectangle & fits[:, None, None])
            failures = torch.where(fits, 0, failures + 1)
            active = (new * fits < missing) & (failures < _TRIES)
            finished[numbers[~active]] = cells[~active]
            numbers, cells, failures = numbers[active], cells[active], failures[active]
        return finished


def _rectangles(cells: Cells, smallest: float, missing: Tensor, generator: torch.Generator) -> Cells:
    """One rectangle an image; an empty one where it would reach from edge to edge, as BEiT refuses it."""
    batch, rows, columns = cells.shape
    area_at, aspect_at, top_at, left_at = torch.rand(4, batch, generator=generator, device=cells.device)
    area = smallest + (missing - smallest) * area_at
    aspect = torch.exp(math.log(_FLATTEST) * (1 - 2 * aspect_at))
    height, width = (area * aspect).sqrt().round(), (area / aspect).sqrt().round()
    fits = (height < rows) & (width < columns)
    top, left = (top_at * (rows - height + 1)).floor(), (left_at * (columns - width + 1)).floor()
    row = torch.arange(rows, device=cells.device).view(1, -1, 1)
    column = torch.arange(columns, device=cells.device).view(1, 1, -1)
    top, left, bottom, right = (edge.view(-1, 1, 1) for edge in (top, left, top + height, left + width))
    return (row >= top) & (row < bottom) & (column >= left) & (column < right) & fits.view(-1, 1, 1)


def _grow(cells: Cells, hidden: int, generator: torch.Generator) -> Cells:
    """Hide cells at the border of the hidden region, at random, until the count is right in every image."""
    while True:
        missing = hidden - cells.flatten(1).sum(dim=1)
        (short,) = (missing > 0).nonzero(as_tuple=True)
        if not len(short):
            return cells
        some, lacking = cells[short], missing[short]
        border = _beside(some) & ~some
        border = torch.where(border.flatten(1).any(dim=1)[:, None, None], border, ~some)  # nothing is hidden yet
        rank = torch.rand(some.shape, generator=generator, device=cells.device)
        order = torch.where(border, rank, 2.0).flatten(1).argsort(dim=1)
        first = torch.arange(order.shape[1], device=cells.device) < lacking[:, None]
        chosen = torch.zeros_like(first).scatter(1, order, first).view_as(some) & border
        cells = cells.index_copy(0, short, some | chosen)


def _beside(cells: Cells) -> Cells:
    """The cells that touch a hidden one at a side."""
    padded = torch.nn.functional.pad(cells, (1, 1, 1, 1))
    return padded[:, :-2, 1:-1] | padded[:, 2:, 1:-1] | padded[:, 1:-1, :-2] | padded[:, 1:-1, 2:]
