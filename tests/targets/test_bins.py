"""Channel-wise bins, against a float64 loop over pixels."""

import math

import numpy as np
import pytest
import torch

from simmim.targets import BinTarget

MEAN, STD = (0.4, 0.5), (0.2, 0.25)


def _images(raw: np.ndarray) -> torch.Tensor:
    numbers = (np.array(MEAN).reshape(1, 2, 1, 1), np.array(STD).reshape(1, 2, 1, 1))
    return torch.from_numpy((raw / 255 - numbers[0]) / numbers[1]).float()


@pytest.mark.parametrize("bins", [8, 256, 5])
def test_every_grey_level_falls_into_the_bin_it_belongs_to(bins: int) -> None:
    raw = np.arange(256).repeat(2).reshape(1, 256, 2).transpose(0, 2, 1).reshape(1, 2, 16, 16)
    raw = np.clip(raw, 0, 254) + 0.5  # the middle of a level, away from rounding
    found = BinTarget(bins=bins).build(mean=MEAN, std=STD)(_images(raw))
    for at in np.ndindex(raw.shape):
        assert int(found[at]) == min(math.floor(raw[at] / 255 * bins), bins - 1)


def test_256_bins_are_one_for_each_level_and_8_hold_32_each() -> None:
    raw = np.stack([np.arange(256).reshape(16, 16)] * 2)[None].astype(float)
    for bins, levels in ((256, 1), (8, 32)):
        found = BinTarget(bins=bins, high=256 / 255).build(mean=MEAN, std=STD)(_images(raw + 0.25))
        assert torch.equal(found, torch.from_numpy(raw // levels).long())


def test_values_beyond_the_edges_fall_into_the_outer_bins() -> None:
    images = torch.tensor([-100.0, 100.0]).view(1, 1, 1, 2).expand(1, 2, 1, 2)
    assert BinTarget().build(mean=MEAN, std=STD)(images)[0, 0, 0].tolist() == [0, 7]


def test_the_distance_is_the_mean_cross_entropy_of_the_channels() -> None:
    target = BinTarget(bins=3).build(mean=MEAN, std=STD)
    generator = torch.Generator().manual_seed(0)
    scores, classes = torch.randn(1, 6, 1, 1, generator=generator), torch.tensor([2, 0]).view(1, 2, 1, 1)
    errors = target.distance(scores, classes)
    for channel, right in enumerate((2, 0)):
        three = scores[0, channel * 3 : channel * 3 + 3, 0, 0].double()
        assert float(errors[0, channel, 0, 0]) == pytest.approx(
            float(torch.log(three.exp().sum()) - three[right]), rel=1e-6
        )


def test_a_perfect_prediction_is_shown_within_half_a_bin() -> None:
    raw = np.random.default_rng(0).integers(0, 255, (1, 2, 8, 8)).astype(float)
    images = _images(raw)
    target = BinTarget(bins=16).build(mean=MEAN, std=STD)
    scores = torch.nn.functional.one_hot(target(images), 16).permute(0, 1, 4, 2, 3).reshape(1, 32, 8, 8).float()
    shown = target.to_images(scores, images) * torch.tensor(STD).view(1, 2, 1, 1) + torch.tensor(MEAN).view(1, 2, 1, 1)
    assert (shown - torch.from_numpy(raw / 255)).abs().max() <= 0.5 / 16 + 1e-6


def test_a_range_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="must be larger than"):
        BinTarget(low=1, high=1).build(mean=MEAN, std=STD)
