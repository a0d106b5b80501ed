"""Grey, colour and transparency: bring an image to the number of channels a run has."""

import torch
from torch import Tensor

from simmim.data.image import ImageFile, UnreadableImage

_LUMINANCE = (0.299, 0.587, 0.114)  # ITU-R 601


def check_channels(image: ImageFile, *, wanted: int) -> None:
    """Raise `UnreadableImage` if an image cannot be shown with the wanted number of channels."""
    if wanted not in (image.channels, image.colours) and not {image.colours, wanted} <= {1, 3}:
        raise UnreadableImage(f"has {image.channels} channels, this run has {wanted}")


def fit_channels(pixels: Tensor, *, channels: int, alpha: bool) -> Tensor:
    """Bring (channels, height, width) to the wanted number of channels.

    Grey is repeated, colour becomes luminance, transparency (the last channel, where `alpha`) is dropped.
    """
    if len(pixels) == channels:
        return pixels
    pixels = pixels[:-1] if alpha else pixels
    if len(pixels) == channels:
        return pixels
    assert {len(pixels), channels} == {1, 3}, "the header was checked before"
    return pixels.expand(channels, -1, -1) if len(pixels) == 1 else _luminance(pixels)


def _luminance(pixels: Tensor) -> Tensor:
    weights = torch.tensor(_LUMINANCE, dtype=torch.float32).view(3, 1, 1)
    grey = (pixels.float() * weights).sum(dim=0, keepdim=True)
    return grey if pixels.is_floating_point() else grey.round().to(pixels.dtype)
