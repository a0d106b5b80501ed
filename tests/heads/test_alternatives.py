"""The paper's other heads: their published sizes, and what each cell may see."""

import pytest
import torch

from simmim.encoders import SwinConfig
from simmim.heads import HeadConfig, InverseSwinHeadConfig, LinearHeadConfig, MLPHeadConfig
from simmim.model import SimMIM
from simmim.targets import PixelTarget

SMALL = InverseSwinHeadConfig(width=32, depths=(1, 1, 2, 1), num_heads=(4, 2, 1, 1), window=3)


@pytest.mark.parametrize(
    ("head", "millions"),
    [
        (LinearHeadConfig(), 89.87),
        (MLPHeadConfig(), 90.92),
        (InverseSwinHeadConfig(size="tiny"), 115.16),
        (InverseSwinHeadConfig(size="base"), 174.75),
    ],
)
def test_swin_b_has_the_published_number_of_parameters_with_every_head(head: HeadConfig, millions: float) -> None:
    with torch.device("meta"):
        encoder = SwinConfig(window=6).build(image_size=(192, 192), in_channels=3)
        model = SimMIM(encoder=encoder, head=head, target=PixelTarget().build(mean=(0.5,) * 3, std=(0.25,) * 3))
    assert round(sum(parameter.numel() for parameter in model.parameters()) / 1e6, 2) == millions


def test_an_mlp_sees_one_feature_cell_and_an_inverse_swin_its_neighbours() -> None:
    features = torch.zeros(1, 20, 4, 4)
    changed = features.clone()
    changed[0, :, 1, 1] = 1
    for config, local in ((MLPHeadConfig(hidden=8), True), (SMALL, False)):
        head = config.build(num_features=20, channels=3, upscale=8).eval()
        difference = (head(changed) - head(features)).abs().sum(dim=1)[0] > 0
        outside = difference.clone()
        outside[8:16, 8:16] = False
        assert difference[8:16, 8:16].any()
        assert bool(outside.any()) is not local


def test_an_inverse_swin_takes_maps_of_any_shape_and_says_what_it_cannot() -> None:
    head = SMALL.build(num_features=20, channels=5, upscale=32)
    assert head(torch.randn(2, 20, 3, 5)).shape == (2, 5, 96, 160)
    with pytest.raises(ValueError, match=r"is 4 times; take a finer target"):
        SMALL.build(num_features=20, channels=3, upscale=4)
