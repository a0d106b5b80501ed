import numpy as np
import pytest
import torch

from reference.loss import ERRORS, mean_of_cells
from simmim.targets import PixelTarget


@pytest.mark.parametrize("channels", [1, 3, 13])
def test_at_full_resolution_the_target_is_the_image_itself(channels: int) -> None:
    images = torch.randn(2, channels, 8, 12)
    target = PixelTarget().build(mean=(0.0,) * channels, std=(1.0,) * channels)
    assert (target.channels, target.stride) == (channels, 1)
    assert torch.equal(target(images), images)


@pytest.mark.parametrize("stride", [2, 3, 4, 8, 16])
def test_at_a_lower_resolution_it_is_the_mean_of_each_cell(stride: int) -> None:
    images = torch.randn(2, 3, 48, 96, generator=torch.Generator().manual_seed(0))
    cells = PixelTarget(stride=stride).build(mean=(0.0,) * 3, std=(1.0,) * 3)(images)
    expected = mean_of_cells(images.double().numpy(), stride)
    assert cells.shape == (2, 3, 48 // stride, 96 // stride)
    assert np.abs(cells.numpy() - expected).max() < 1e-6


@pytest.mark.parametrize("distance", ["l1", "l2", "smooth_l1"])
def test_a_distance_is_its_published_formula(distance: str) -> None:
    prediction, target = torch.linspace(-3, 3, 24).reshape(1, 2, 3, 4), torch.zeros(1, 2, 3, 4)
    errors = PixelTarget(distance=distance).build(mean=(0.0,) * 2, std=(1.0,) * 2).distance(prediction, target)  # type: ignore[arg-type]
    assert torch.allclose(errors, ERRORS[distance](prediction), atol=1e-6)


def test_a_distance_is_taken_in_float32_whatever_the_network_speaks() -> None:
    target = torch.full((1, 1, 2, 2), 1.0009765625)
    errors = (
        PixelTarget()
        .build(mean=(0.0,) * 1, std=(1.0,) * 1)
        .distance(torch.ones(1, 1, 2, 2, dtype=torch.bfloat16), target)
    )
    assert errors.dtype == torch.float32
    assert torch.equal(errors, torch.full((1, 1, 2, 2), 0.0009765625))
