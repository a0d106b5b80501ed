"""Grey, colour and transparency: bring an image to the number of channels a run has."""

import torch
from torch import Tensor

from simmim.data.image import UnreadableImage

_LUMINANCE = (0.299, 0.587, 0.114)  # ITU-R 601

_WITHOUT_ALPHA = {2: 1, 4: 3}


def without_alpha(channels: int) -> int:
    """How many channels carry the picture: grey with transparency counts as 1, colour with transparency as 3."""
    return _WITHOUT_ALPHA.get(channels, channels)


def check_channels(found: int, *, wanted: int) -> None:
    """Raise `UnreadableImage` if an image of `found` channels cannot be shown with `wanted`."""
    if found != wanted and not {without_alpha(found), wanted} <= {1, 3}:
        raise UnreadableImage(f"has {found} channels, this run has {wanted}")


def fit_channels(pixels: Tensor, *, channels: int) -> Tensor:
    """Bring (channels, height, width) to the wanted number of channels.

    Grey is repeated, colour becomes luminance, transparency is dropped.

    Raises `UnreadableImage` for any other combination.
    """
    found = len(pixels)
    check_channels(found, wanted=channels)
    if found == channels:
        return pixels
    pixels = pixels[: without_alpha(found)]
    if len(pixels) == channels:
        return pixels
    return pixels.expand(channels, -1, -1) if len(pixels) == 1 else _luminance(pixels)


def _luminance(pixels: Tensor) -> Tensor:
    weights = torch.tensor(_LUMINANCE, dtype=torch.float32).view(3, 1, 1)
    grey = (pixels.float() * weights).sum(dim=0, keepdim=True)
    return grey if pixels.is_floating_point() else grey.round().to(pixels.dtype)
