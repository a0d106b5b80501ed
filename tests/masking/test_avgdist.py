"""AvgDist, against a brute-force search over all pixels."""

import itertools

import numpy as np
import pytest
import torch

from simmim.masking import RandomMasking, average_distance


def _brute_force(tokens: np.ndarray, patch_size: int) -> float:
    hidden = np.kron(tokens, np.ones((patch_size, patch_size))).astype(bool)
    visible = np.argwhere(~hidden)
    nearest = [np.sqrt(((visible - pixel) ** 2).sum(axis=1)).min() for pixel in np.argwhere(hidden)]
    return float(np.mean(nearest))


@pytest.mark.parametrize(
    ("shape", "patch_size", "count"), [((3, 3), 4, 80), ((4, 6), 3, 3), ((10, 7), 2, 3), ((12, 12), 1, 200)]
)
def test_it_is_the_distance_to_the_nearest_visible_pixel(shape: tuple[int, int], patch_size: int, count: int) -> None:
    generator = np.random.default_rng(0)
    masks = generator.random((count, *shape)) < 0.6
    masks[:, 0, 0], masks[:, -1, -1] = True, False
    expected = np.mean([_brute_force(tokens, patch_size) for tokens in masks])
    assert average_distance(torch.from_numpy(masks), patch_size=patch_size) == pytest.approx(expected, rel=1e-6)


def test_one_hidden_pixel_is_one_pixel_away() -> None:
    mask = torch.zeros(1, 5, 5, dtype=torch.bool)
    mask[0, 2, 2] = True
    assert average_distance(mask, patch_size=1) == 1


def test_all_masks_of_nine_cells_have_the_mean_that_sampling_finds() -> None:
    every = torch.zeros(84, 9, dtype=torch.bool)
    for number, cells in enumerate(itertools.combinations(range(9), 3)):
        every[number, list(cells)] = True
    sampled = RandomMasking(ratio=0.3, mask_patch=64)(
        3000, image_size=(192, 192), patch_size=64, generator=torch.Generator().manual_seed(0)
    )
    expected = average_distance(every.view(-1, 3, 3), patch_size=64)
    assert average_distance(sampled, patch_size=64) == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize(("fill", "said"), [(True, "everything"), (False, "nothing")])
def test_a_mask_of_everything_or_nothing_has_none(fill: bool, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        average_distance(torch.full((1, 3, 3), fill), patch_size=4)
