import warnings
from typing import Any

import numpy as np
import pytest
import torch
from scipy.interpolate import CubicSpline
from timm.layers import resize_rel_pos_bias_table  # pyright: ignore[reportPrivateImportUsage]

from simmim.weights.resize import fit_input_channels, fit_output_channels, resize_positions, resize_table


def geometric(source: int, wanted: int) -> list[float]:
    """The places of the source: 1 + q + q^2 + ... reaches the border of the target; q between 1.01 and 1.5."""
    low, high, q = 1.01, 1.5, 1.01
    while high - low > 1e-6:
        q = (low + high) / 2
        if sum(q**power for power in range(source // 2)) > wanted // 2:
            high = q
        else:
            low = q
    right = [sum(q**power for power in range(count + 1)) for count in range(source // 2)]
    return [-place for place in reversed(right)] + [0.0] + right


@pytest.mark.parametrize(("before", "after"), [(6, 7), (12, 14), (7, 6)])
def test_the_cubic_rule_is_scipys_spline_on_the_official_grid(before: int, after: int) -> None:
    """A bicubic spline through a grid is a cubic spline along its rows of the cubic splines along its columns."""
    source, wanted = 2 * before - 1, 2 * after - 1
    table = torch.randn(source**2, 3, generator=torch.Generator().manual_seed(0))
    places = geometric(source, wanted)
    at = np.clip(np.arange(-(wanted // 2), wanted // 2 + 1), places[0], places[-1])
    resized = resize_table(table, (source, source), (wanted, wanted))
    for head in range(3):
        grid = table[:, head].double().numpy().reshape(source, source)
        spline: Any = CubicSpline(places, CubicSpline(places, grid, axis=0)(at), axis=1)
        assert np.abs(spline(at).ravel() - resized[:, head].numpy()).max() < 1e-4


def test_the_places_are_those_of_the_specification() -> None:
    assert np.allclose(geometric(11, 13)[6:], [1, 2.091, 3.282, 4.582, 6.000], atol=1e-3)


@pytest.mark.parametrize(("before", "after"), [((6, 6), (7, 7)), ((4, 6), (6, 9))])
def test_the_linear_rule_is_timms(before: tuple[int, int], after: tuple[int, int]) -> None:
    source, wanted = ((2 * height - 1, 2 * width - 1) for height, width in (before, after))
    table = torch.randn(source[0] * source[1] + 3, 2)
    ours = resize_table(table, source, wanted, rule="linear", extra=3)
    shape = (wanted[0] * wanted[1] + 3, 2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # timm's own code is what they are about
        theirs = resize_rel_pos_bias_table(table, after, shape, old_window_size=before)
    assert torch.allclose(ours, theirs, atol=1e-4)


def test_entries_of_the_class_token_stay() -> None:
    table = torch.randn(7 * 7 + 3, 2)
    assert torch.equal(resize_table(table, (7, 7), (9, 13), extra=3)[-3:], table[-3:])
    assert resize_table(table, (7, 7), (7, 7), extra=3) is table


def test_positions_that_are_a_ramp_stay_one() -> None:
    ramp = torch.arange(8.0).view(1, 1, 8, 1).expand(1, 8, 8, 1).reshape(1, 64, 1)
    resized = resize_positions(torch.cat((torch.full((1, 1, 1), -5.0), ramp), dim=1), (8, 8), (8, 16))
    assert resized[0, 0, 0] == -5
    inner = resized[0, 1:].reshape(8, 16)[0, 4:-4]
    assert torch.allclose(inner.diff(), torch.full((7,), 0.5), atol=1e-3)


def test_channels_are_repeated_and_scaled() -> None:
    weight = torch.randn(4, 3, 2, 2)
    image = torch.randn(1, 1, 2, 2)
    before = torch.nn.functional.conv2d(image.expand(1, 3, 2, 2), weight)
    for channels in (1, 2, 4, 13):
        after = torch.nn.functional.conv2d(image.expand(1, channels, 2, 2), fit_input_channels(weight, channels))
        assert channels % 3 or torch.allclose(after, before, atol=1e-5)
        assert after.shape == before.shape
    assert torch.allclose(fit_input_channels(weight, 6)[:, :3], weight / 2)
    assert torch.equal(fit_output_channels(torch.arange(12), 3, 4), torch.tensor([*range(12), 0, 1, 2, 3]))
