"""Random patch-aligned masking, the default of the paper (section 3.2)."""

from typing import Literal

import torch
from pydantic import Field

from simmim.config import Part
from simmim.masking.cells import grid_of_cells, hidden_count, to_tokens
from simmim.shapes import Mask
from simmim.units import Pixels, Size


class RandomMasking(Part, frozen=True):
    """Hide a random choice of square cells, the same number in every image.

    The image is cut into cells of `mask_patch` pixels a side, whatever the model's own patch is; of N cells,
    ceil(N * ratio) are hidden.
    """

    kind: Literal["random"] = "random"
    ratio: float = Field(default=0.6, gt=0, lt=1)
    """Share of the cells that are hidden, between 0 and 1."""
    mask_patch: Pixels = Field(default=32, gt=0)
    """Pixels a side of a hidden cell; a multiple of the model patch."""

    def __call__(self, batch: int, *, image_size: Size, patch_size: int, generator: torch.Generator) -> Mask:
        """Draw the masks; see `simmim.masking.Masking`."""
        rows, columns = grid_of_cells(image_size, mask_patch=self.mask_patch, patch_size=patch_size)
        hidden = hidden_count(rows * columns, self.ratio, mask_patch=self.mask_patch)
        draw = torch.rand(batch, rows * columns, generator=generator, device=generator.device)
        chosen = draw.topk(hidden, dim=1, largest=False, sorted=False).indices
        cells = torch.zeros(batch, rows * columns, dtype=torch.bool, device=generator.device)
        cells = cells.scatter_(1, chosen, True).view(batch, rows, columns)
        return to_tokens(cells, self.mask_patch // patch_size)
