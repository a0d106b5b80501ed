"""What is hidden: strategies that choose the patches of each image that the encoder will not see. No weights."""

from typing import Annotated, Protocol

import torch

from simmim.config import OneOf
from simmim.masking.avgdist import average_distance
from simmim.masking.block import BlockMasking
from simmim.masking.random import RandomMasking
from simmim.masking.square import SquareMasking
from simmim.shapes import Mask
from simmim.units import Size

__all__ = ["AnyMasking", "BlockMasking", "Masking", "RandomMasking", "SquareMasking", "average_distance"]


class Masking(Protocol):
    """The contract of a masking strategy."""

    def __call__(self, batch: int, *, image_size: Size, patch_size: int, generator: torch.Generator) -> Mask:
        """Draw the masks of a batch: one boolean a token, true where it is hidden.

        Args:
            batch: number of masks.
            image_size: height and width in pixels.
            patch_size: model patch, the pixels a side of one token.
            generator: the only source of randomness.

        Raises:
            ValueError: where the sizes do not fit, with the arithmetic and the nearest that fits.
        """
        ...


AnyMasking = Annotated[Masking, OneOf((RandomMasking, SquareMasking, BlockMasking))]
