"""Colour clusters, against scikit-learn's nearest neighbour."""

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.neighbors import NearestNeighbors

from simmim.targets import ClusterTarget

MEAN, STD = (0.4, 0.5, 0.3), (0.2, 0.25, 0.3)


@pytest.mark.parametrize("scale", ["0 to 1", "0 to 255", "-1 to 1"])
def test_every_pixel_has_the_nearest_colour_whatever_the_scale_of_the_file(tmp_path: Path, scale: str) -> None:
    generator = np.random.default_rng(0)
    centres = generator.random((20, 3))
    written = {"0 to 1": centres, "0 to 255": centres * 255, "-1 to 1": centres * 2 - 1}[scale]
    np.save(tmp_path / "palette.npy", written.astype(np.float32))
    mean, std = (1.0 / 3,) * 3, (0.25,) * 3  # one spread for all, so that nearness is the same in both scales
    images = torch.from_numpy((generator.random((2, 3, 6, 5)) - mean[0]) / std[0]).float()
    found = ClusterTarget(centres=str(tmp_path / "palette.npy"), stride=1).build(mean=mean, std=std)(images)
    colours = images.permute(0, 2, 3, 1).reshape(-1, 3).numpy() * std[0] + mean[0]
    expected = NearestNeighbors(n_neighbors=1).fit(centres).kneighbors(colours)[1].reshape(2, 1, 6, 5)
    assert np.array_equal(found.numpy(), expected)


def test_nearness_is_that_of_the_palette_and_not_of_the_normalised_images(tmp_path: Path) -> None:
    np.save(tmp_path / "palette.npy", np.array([[0.5, 0.5, 0.5], [0.6, 0.5, 0.9]], dtype=np.float32))
    std = (0.001, 1.0, 1.0)  # in normalised numbers the first channel would decide alone
    colour = torch.tensor([0.58, 0.5, 0.5])
    images = ((colour - torch.tensor(MEAN)) / torch.tensor(std)).view(1, 3, 1, 1)
    target = ClusterTarget(centres=str(tmp_path / "palette.npy"), stride=1).build(mean=MEAN, std=std)
    assert int(target(images)) == 0


def test_a_perfect_prediction_is_shown_in_the_colours_of_the_palette(tmp_path: Path) -> None:
    centres = np.random.default_rng(1).random((4, 3)).astype(np.float32)
    np.save(tmp_path / "palette.npy", centres)
    target = ClusterTarget(centres=str(tmp_path / "palette.npy"), stride=1).build(mean=MEAN, std=STD)
    pixels = centres[[[0, 1], [2, 3]]].transpose(2, 0, 1)[None]
    images = (torch.from_numpy(pixels) - torch.tensor(MEAN).view(1, 3, 1, 1)) / torch.tensor(STD).view(1, 3, 1, 1)
    scores = torch.nn.functional.one_hot(target(images)[:, 0], 4).permute(0, 3, 1, 2).float()
    torch.testing.assert_close(target.to_images(scores, images), images, atol=1e-5, rtol=1e-5)


def test_a_palette_that_is_not_there_or_is_none_is_said(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="make one with: simmim clusters"):
        ClusterTarget(centres="absent.npy").build(mean=MEAN, std=STD)
    np.save(tmp_path / "palette.npy", np.zeros((4, 2)))
    with pytest.raises(ValueError, match=r"shape \(4, 2\); a palette is \(colours, 3\)"):
        ClusterTarget(centres=str(tmp_path / "palette.npy")).build(mean=MEAN, std=STD)
