import numpy as np
import pytest
import torch

from simmim.heads import LinearHead, LinearHeadConfig


@pytest.mark.parametrize(("upscale", "channels"), [(1, 3), (2, 1), (4, 3), (8, 13)])
def test_each_output_is_the_official_channel_of_the_cell_it_lies_in(upscale: int, channels: int) -> None:
    """Specification B4: output index = colour * s^2 + row * s + column."""
    torch.manual_seed(0)
    head = LinearHead(5, channels=channels, upscale=upscale)
    features = torch.randn(2, 5, 3, 2)
    weight = head[0].weight.detach().double().numpy()[:, :, 0, 0]
    bias = head[0].bias.detach().double().numpy()
    prediction = head(features).detach().numpy()
    assert prediction.shape == (2, channels, 3 * upscale, 2 * upscale)
    for image, colour, y, x in np.ndindex(*prediction.shape):
        row, column = y % upscale, x % upscale
        index = colour * upscale**2 + row * upscale + column
        cell = features[image, :, y // upscale, x // upscale].double().numpy()
        assert prediction[image, colour, y, x] == pytest.approx(weight[index] @ cell + bias[index], abs=1e-5)


def test_the_layers_are_numbered_as_in_the_official_file() -> None:
    state = LinearHead(1024, channels=3, upscale=32).state_dict()
    assert {name: tuple(tensor.shape) for name, tensor in state.items()} == {
        "0.weight": (3072, 1024, 1, 1),
        "0.bias": (3072,),
    }


@pytest.mark.parametrize(("stride", "outputs"), [(32, 3), (16, 12), (8, 48), (4, 192), (2, 768), (1, 3072)])
def test_lower_resolutions_have_the_published_number_of_outputs(stride: int, outputs: int) -> None:
    head = LinearHeadConfig().build(num_features=8, channels=3, upscale=32 // stride)
    assert head[0].out_channels == outputs


def test_the_weights_start_as_pytorch_starts_a_convolution() -> None:
    torch.manual_seed(3)
    ours = LinearHead(16, channels=3, upscale=2)
    torch.manual_seed(3)
    theirs = torch.nn.Conv2d(16, 12, kernel_size=1)
    assert torch.equal(ours[0].weight, theirs.weight)
    assert torch.equal(ours[0].bias, theirs.bias)
