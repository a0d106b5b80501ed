import numpy as np
import torch

from simmim.squares import Squares


def test_squares_are_taken_image_by_image_and_row_by_row() -> None:
    hidden = torch.zeros(2, 4, 6, dtype=torch.bool)
    hidden[0, 1, 5] = hidden[1, 2, 0] = hidden[1, 3, 1] = hidden[1, 0, 3] = True
    squares = Squares.of(hidden, side=2)
    assert squares.numbers.tolist() == [2, 6 + 1, 6 + 3]
    maps = torch.arange(2 * 3 * 8 * 12.0).view(2, 3, 8, 12)
    numbers = maps.numpy()
    expected = np.stack([numbers[0, :, :4, 8:], numbers[1, :, :4, 4:8], numbers[1, :, 4:, :4]])
    assert np.array_equal(squares.take(maps, (2, 3)).numpy(), expected)


def test_there_is_always_one() -> None:
    assert Squares.of(torch.zeros(3, 4, 4, dtype=torch.bool), side=2).numbers.tolist() == [0]
