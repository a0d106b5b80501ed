"""Pixels normalised where they stand, against a brute-force window and a brute-force patch."""

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from simmim.targets import LocalPixelTarget, PatchPixelTarget

IMAGES = torch.randn(2, 3, 12, 17, generator=torch.Generator().manual_seed(0)) * 2 + 1
NUMBERS = {"mean": (0.0,) * 3, "std": (1.0,) * 3}


def _by_hand(image: np.ndarray, window: int) -> np.ndarray:
    """(official file: microsoft/Swin-Transformer models/simmim.py) One pixel at a time, in float64."""
    out = np.empty_like(image)
    half = window // 2
    for row in range(image.shape[0]):
        for column in range(image.shape[1]):
            around = image[max(row - half, 0) : row + half + 1, max(column - half, 0) : column + half + 1]
            out[row, column] = (image[row, column] - around.mean()) / np.sqrt(around.var(ddof=1) + 1e-6)
    return out


@pytest.mark.parametrize("window", [3, 5, 47])
def test_each_pixel_is_normalised_by_the_window_around_it(window: int) -> None:
    target = LocalPixelTarget(window=window).build(**NUMBERS)(IMAGES)
    expected = [[_by_hand(channel, window) for channel in image] for image in IMAGES.double().numpy()]
    np.testing.assert_allclose(target.numpy(), np.array(expected), atol=2e-4)


def test_each_pixel_is_normalised_by_the_patch_it_lies_in() -> None:
    images = torch.randn(2, 3, 8, 12, generator=torch.Generator().manual_seed(1)) * 3
    target = PatchPixelTarget(patch=4).build(**NUMBERS)(images)
    patches = images.double().unfold(2, 4, 4).unfold(3, 4, 4)
    mean = patches.mean(dim=(1, -1, -2), keepdim=True)
    expected = (patches - mean) / (patches.var(dim=(1, -1, -2), keepdim=True) + 1e-6).sqrt()
    found = target.unfold(2, 4, 4).unfold(3, 4, 4)
    torch.testing.assert_close(found.double(), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("target", [LocalPixelTarget(window=5), PatchPixelTarget(patch=1 + 3)])
def test_a_perfect_prediction_is_shown_as_the_image_itself(target: LocalPixelTarget | PatchPixelTarget) -> None:
    images = IMAGES[:, :, :, :16]
    built = target.build(**NUMBERS)
    torch.testing.assert_close(built.to_images(built(images), images), images, atol=1e-4, rtol=1e-4)


def test_brightness_and_contrast_of_the_image_do_not_matter() -> None:
    built = LocalPixelTarget(window=7).build(**NUMBERS)
    torch.testing.assert_close(built(IMAGES * 3 + 5), built(IMAGES), atol=1e-3, rtol=1e-3)


def test_what_has_no_middle_or_does_not_divide_is_refused() -> None:
    with pytest.raises(ValidationError, match="nearest: 45 or 47"):
        LocalPixelTarget(window=46)
    with pytest.raises(ValueError, match="does not divide an image of 12x17 px"):
        PatchPixelTarget(patch=4).build(**NUMBERS)(IMAGES)
