"""Block-wise masking one image and one rectangle at a time, as the BEiT paper's algorithm 1 and its code's limits say."""

import math
import random


def beit_mask(rows: int, columns: int, hidden: int, smallest: float, draw: random.Random) -> list[list[bool]]:
    """A mask by the published procedure: rectangles until enough is hidden, or ten in a row did not fit."""
    mask = [[False] * columns for _ in range(rows)]
    count = 0
    while count < hidden:
        for _ in range(10):
            area = draw.uniform(smallest, hidden - count)
            aspect = math.exp(draw.uniform(math.log(0.3), math.log(1 / 0.3)))
            height, width = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if height >= rows or width >= columns:
                continue
            top, left = draw.randint(0, rows - height), draw.randint(0, columns - width)
            cells = [(y, x) for y in range(top, top + height) for x in range(left, left + width) if not mask[y][x]]
            if 0 < len(cells) <= hidden - count:
                for y, x in cells:
                    mask[y][x] = True
                count += len(cells)
                break
        else:
            return mask
    return mask
