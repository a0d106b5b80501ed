"""What decides that a network is the published one (specification D6)."""

import math

import pytest
import torch

from simmim.encoders import BeitConfig, SwinConfig, SwinV2Config, ViTConfig
from simmim.encoders.beit import BeitEncoder


def _beit(depth: int = 3) -> BeitEncoder:
    torch.manual_seed(0)
    config = BeitConfig(embed_dim=96, depth=depth, num_heads=2, patch_size=8)
    return config.build(image_size=(32, 32), in_channels=3)


def test_the_papers_vit_starts_as_published() -> None:
    beit = _beit().backbone
    assert beit.pos_embed is None
    assert beit.rel_pos_bias.relative_position_bias_table.shape == (7 * 7 + 3, 2)
    assert beit.rel_pos_bias.relative_position_bias_table.abs().max() == 0
    for number, block in enumerate(beit.blocks, 1):
        assert torch.equal(block.gamma_1, torch.full((96,), 0.1))
        assert torch.equal(block.gamma_2, torch.full((96,), 0.1))
        assert block.attn.relative_position_bias_table is None
        assert block.attn.qkv.bias is None
        assert (block.attn.q_bias.shape, block.attn.v_bias.shape) == ((96,), (96,))
        for rescaled in (block.attn.proj.weight, block.mlp.fc2.weight):
            assert rescaled.std().item() == pytest.approx(0.02 / math.sqrt(2 * number), rel=0.1)
        assert block.mlp.fc1.weight.std().item() == pytest.approx(0.02, rel=0.1)
    assert (beit.norm.eps, beit.blocks[0].norm1.eps) == (1e-6, 1e-6)


def test_one_position_bias_is_shared_by_all_blocks() -> None:
    encoder = _beit(depth=2)
    tables = [name for name, _ in encoder.named_parameters() if "relative_position_bias_table" in name]
    assert tables == ["backbone.rel_pos_bias.relative_position_bias_table"]


def test_the_shared_bias_moves_what_the_encoder_says() -> None:
    encoder, images = _beit().eval(), torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        before = encoder(images)
        encoder.backbone.rel_pos_bias.relative_position_bias_table.normal_()
        assert not torch.allclose(encoder(images), before)


def test_swin_starts_as_published() -> None:
    torch.manual_seed(0)
    config = SwinConfig(embed_dim=32, depths=(2, 2), num_heads=(2, 4), window=6)
    swin = config.build(image_size=(96, 96), in_channels=3).backbone
    block = swin.layers[0].blocks[1]
    assert block.attn.relative_position_bias_table.shape == (121, 2)
    assert block.attn.relative_position_bias_table.std().item() == pytest.approx(0.02, rel=0.2)
    assert block.attn.qkv.bias.abs().max() == 0
    assert block.mlp.fc1.weight.std().item() == pytest.approx(0.02, rel=0.1)
    assert [tuple(item.shift_size) for item in swin.layers[0].blocks] == [(0, 0), (3, 3)]
    assert isinstance(swin.patch_embed.norm, torch.nn.LayerNorm)


def test_swinv2_starts_as_published() -> None:
    config = SwinV2Config(embed_dim=32, depths=(2, 2), num_heads=(2, 4), window=6)
    swin = config.build(image_size=(96, 96), in_channels=3).backbone
    for block in [block for layer in swin.layers for block in layer.blocks]:
        assert block.norm1.weight.abs().max() == block.norm2.weight.abs().max() == 0  # every block starts as identity
        assert torch.allclose(block.attn.logit_scale, torch.tensor(math.log(10)))


@pytest.mark.parametrize("window", [6, 12])
def test_a_window_shrinks_where_the_map_is_smaller(window: int) -> None:
    config = SwinConfig(embed_dim=16, depths=(2, 2, 2), num_heads=(1, 2, 4), window=window)
    swin = config.build(image_size=(96, 96), in_channels=3).backbone  # maps of 24, 12 and 6 tokens a side
    blocks = [layer.blocks[1] for layer in swin.layers]
    assert [block.window_size[0] for block in blocks] == [min(window, side) for side in (24, 12, 6)]
    assert [block.shift_size[0] for block in blocks] == [window // 2 if side > window else 0 for side in (24, 12, 6)]


def test_drop_path_rises_to_its_value_at_the_last_block() -> None:
    config = ViTConfig(name="vit_tiny_patch16_224", embed_dim=24, depth=3, num_heads=2, drop_path=0.2)
    blocks = config.build(image_size=(32, 32), in_channels=3).backbone.blocks
    chances = [getattr(block.drop_path1, "drop_prob", 0.0) for block in blocks]
    assert chances == pytest.approx([0, 0.1, 0.2])
