"""Random patch-aligned masking, the default of the paper (section 3.2)."""

import math
from typing import Literal

import torch
from pydantic import Field

from simmim.config import Part
from simmim.shapes import Mask
from simmim.units import Pixels, Size, nearest_multiples

_ROUNDING = 1e-9  # 0.55 * 100 is 55.000000000000007 in floating point, and means 55


class RandomMasking(Part, frozen=True):
    """Hide a random choice of square cells, the same number in every image.

    The image is cut into cells of `mask_patch` pixels a side, whatever the model's own patch is; of N cells,
    ceil(N * ratio) are hidden, where the product is taken as exact. (Official file: data/data_simmim.py.)
    """

    kind: Literal["random"] = "random"
    ratio: float = Field(default=0.6, gt=0, lt=1)
    """Share of the cells that are hidden, between 0 and 1."""
    mask_patch: Pixels = Field(default=32, gt=0)
    """Pixels a side of a hidden cell; a multiple of the model patch."""

    def __call__(self, batch: int, *, image_size: Size, patch_size: int, generator: torch.Generator) -> Mask:
        """Draw the masks; see `simmim.masking.Masking`."""
        rows, columns = self._cells(image_size, patch_size)
        hidden = math.ceil(rows * columns * self.ratio - _ROUNDING)
        if hidden >= rows * columns:
            raise ValueError(
                f"masking.ratio={self.ratio:g} hides all {rows * columns} cells of {self.mask_patch} px in an image of "
                f"{image_size[0]}x{image_size[1]} px; a smaller ratio or a smaller mask patch leaves something to see"
            )
        order = torch.rand(batch, rows * columns, generator=generator, device=generator.device).argsort(dim=1)
        cells = torch.zeros(batch, rows * columns, dtype=torch.bool, device=generator.device)
        cells = cells.scatter_(1, order[:, :hidden], True).view(batch, rows, columns)
        tokens_a_cell = self.mask_patch // patch_size
        return cells.repeat_interleave(tokens_a_cell, dim=1).repeat_interleave(tokens_a_cell, dim=2)

    def _cells(self, image_size: Size, patch_size: int) -> Size:
        if self.mask_patch % patch_size:
            raise ValueError(
                f"masking.mask_patch={self.mask_patch} px is not a multiple of the model patch {patch_size} px; "
                f"nearest: {nearest_multiples(self.mask_patch, of=patch_size)}"
            )
        for side, pixels in zip(("height", "width"), image_size, strict=True):
            if pixels % self.mask_patch:
                raise ValueError(
                    f"the image {side} {pixels} px is not a multiple of mask patch {self.mask_patch} px; "
                    f"nearest: {nearest_multiples(pixels, of=self.mask_patch)}"
                )
        return image_size[0] // self.mask_patch, image_size[1] // self.mask_patch
