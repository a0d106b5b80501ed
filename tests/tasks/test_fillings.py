"""Holes filled without learning, against brute force and against what they must reproduce exactly."""

import numpy as np
import pytest
import torch

from simmim.tasks.fillings import FILLINGS, fill, mean_colour, nearest_pixel, smooth

GENERATOR = np.random.default_rng(0)
PIXELS = GENERATOR.random((3, 9, 12)).astype(np.float32)
HIDDEN = GENERATOR.random((9, 12)) < 0.6


def test_the_mean_colour_is_that_of_the_visible_pixels() -> None:
    np.testing.assert_allclose(mean_colour(PIXELS, HIDDEN)[:, 4, 4], PIXELS[:, ~HIDDEN].mean(axis=1), rtol=1e-6)


def test_the_nearest_pixel_is_as_near_as_any_visible_one() -> None:
    filled = nearest_pixel(PIXELS, HIDDEN)
    visible = np.argwhere(~HIDDEN)
    for row, column in np.argwhere(HIDDEN):
        distances = ((visible - (row, column)) ** 2).sum(axis=1)
        candidates = visible[distances == distances.min()]
        assert any(np.array_equal(filled[:, row, column], PIXELS[:, y, x]) for y, x in candidates)


def test_a_slope_is_filled_exactly_between_visible_pixels() -> None:
    rows, columns = np.mgrid[0:9, 0:12].astype(np.float32)
    slope = np.stack([2 * rows + columns, rows - 3 * columns])
    hidden = HIDDEN.copy()
    hidden[[0, 0, -1, -1], [0, -1, 0, -1]] = False  # with its corners seen, every hole lies between
    np.testing.assert_allclose(smooth(slope, hidden), slope, atol=1e-4)


def test_a_hole_at_the_edge_takes_the_nearest_pixel_and_nothing_is_left_empty() -> None:
    hidden = np.zeros((9, 12), dtype=bool)
    hidden[:3] = True
    filled = smooth(PIXELS, hidden)
    np.testing.assert_allclose(filled[:, 0], PIXELS[:, 3])
    assert np.isfinite(filled).all()
    hidden[:, :] = True
    hidden[4] = False  # what is visible is one line
    np.testing.assert_allclose(smooth(PIXELS, hidden)[:, 0], PIXELS[:, 4])


@pytest.mark.parametrize("filling", FILLINGS.values(), ids=FILLINGS)
def test_what_is_visible_stays_as_it_is(filling: object) -> None:
    images, hidden = torch.from_numpy(PIXELS)[None], torch.from_numpy(HIDDEN)[None]
    filled = fill(images, hidden, filling)  # type: ignore[arg-type]
    assert torch.equal(filled[:, :, ~hidden[0]], images[:, :, ~hidden[0]])
    assert not torch.equal(filled, images)
