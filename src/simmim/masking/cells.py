"""The grid of cells that mask strategies choose from, and how it becomes a mask of tokens."""

import math

from simmim.shapes import Cells, Mask
from simmim.units import Size, check_multiple, nearest_multiples

_ROUNDING = 1e-9  # 0.55 * 100 is 55.000000000000007 in floating point, and means 55


def grid_of_cells(image_size: Size, *, mask_patch: int, patch_size: int) -> Size:
    """Rows and columns of cells of `mask_patch` pixels a side.

    Raises:
        ValueError: where the cells do not fit the image, or the tokens not the cells; with the nearest that fits.
    """
    if mask_patch % patch_size:
        raise ValueError(
            f"masking.mask_patch={mask_patch} px is not a multiple of the model patch {patch_size} px; "
            f"nearest: {nearest_multiples(mask_patch, of=patch_size)}"
        )
    check_multiple(image_size, mask_patch, "mask patch")
    return image_size[0] // mask_patch, image_size[1] // mask_patch


def hidden_count(cells: int, ratio: float, *, mask_patch: int) -> int:
    """How many of the cells are hidden: ceil(cells * ratio), the product taken as exact.

    (Official file: data/data_simmim.py, which takes the floating-point product as it is.)

    Raises:
        ValueError: where that is all of them.
    """
    hidden = math.ceil(cells * ratio - _ROUNDING)
    if hidden >= cells:
        raise ValueError(
            f"masking.ratio={ratio:g} hides all {cells} cells of {mask_patch} px; a smaller ratio or a smaller mask patch "
            "leaves something to see"
        )
    return hidden


def to_tokens(cells: Cells, tokens_a_cell: int) -> Mask:
    """The mask of tokens in which every cell (batch, rows, columns) is a square of tokens."""
    batch, rows, columns = cells.shape
    wide = cells.repeat_interleave(tokens_a_cell, dim=2)
    tall = wide[:, :, None].expand(
        -1, -1, tokens_a_cell, -1
    )  # whole rows are copied: five times as fast as single tokens
    return tall.reshape(batch, rows * tokens_a_cell, columns * tokens_a_cell)
