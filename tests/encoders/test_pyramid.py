from typing import Any

import pytest
import torch
from torch import nn

from simmim.encoders import BeitConfig, EncoderConfig, ViTConfig

SMALL: dict[str, Any] = {"patch_size": 8, "embed_dim": 24, "depth": 8, "num_heads": 2}


@pytest.mark.parametrize("config", [ViTConfig(name="vit_tiny_patch16_224", **SMALL), BeitConfig(**SMALL)])
def test_a_plain_transformer_gives_the_maps_behind_the_quarters_of_its_blocks(config: EncoderConfig) -> None:
    encoder = config.build(image_size=(32, 48), in_channels=3).eval()
    behind: dict[int, torch.Tensor] = {}

    def remember(number: int) -> Any:
        def hook(module: nn.Module, inputs: object, output: torch.Tensor) -> None:
            behind[number] = output[:, 1:].transpose(1, 2).reshape(1, 24, 4, 6)

        return hook

    for number, block in enumerate(encoder.backbone.blocks, 1):
        block.register_forward_hook(remember(number))
    with torch.no_grad():
        maps = encoder.pyramid(torch.randn(1, 3, 32, 48))
    assert len(maps) == 4
    for number, found in zip((2, 4, 6, 8), maps, strict=True):
        assert torch.equal(found, behind[number])
