"""SwinV2-H and SwinV2-G: sizes as published, norms where we say, and attention by parts that changes nothing."""

import time
from typing import Any

import pytest
import torch
from torch import nn

from simmim.encoders import Encoder, SwinV2Config

SMALL: dict[str, Any] = {
    "patch_size": 2,
    "embed_dim": 16,
    "depths": (2, 3, 2),
    "num_heads": (1, 2, 4),
    "window": 4,
}
NAMES = ["swinv2_huge_window12_192", "swinv2_giant_window12_192"]


def _small(size: tuple[int, int] = (64, 96), **more: Any) -> Encoder:
    torch.manual_seed(0)
    encoder = SwinV2Config(name="swinv2_huge_window12_192", **SMALL, **more).build(image_size=size, in_channels=3)
    for parameter in encoder.parameters():
        nn.init.normal_(parameter, std=0.1)  # post-norms start at zero, which would hide everything
    return encoder


@pytest.mark.parametrize(("name", "millions", "head"), [(NAMES[0], 655.2, 2_817_000), (NAMES[1], 2997.8, 4_097_000)])
def test_it_has_the_published_size_and_is_built_on_the_meta_device_in_seconds(
    name: str, millions: float, head: int
) -> None:
    start = time.process_time()
    with torch.device("meta"):
        encoder = SwinV2Config(name=name).build(image_size=(192, 192), in_channels=3)
    assert time.process_time() - start < 20
    count = sum(parameter.numel() for parameter in encoder.parameters())
    assert count / 1e6 == pytest.approx(millions, abs=0.1)
    assert all(parameter.is_meta for parameter in encoder.parameters())
    assert (count + head) / 1e6 == pytest.approx({NAMES[0]: 658.0, NAMES[1]: 3001.9}[name], abs=0.1)


def test_a_further_norm_follows_every_sixth_block_counted_through_the_stages() -> None:
    for name, found in (
        (NAMES[0], ["2.1", "2.7", "2.13", "3.1"]),
        (NAMES[1], ["2.1", "2.7", "2.13", "2.19", "2.25", "2.31", "2.37", "3.1"]),
    ):
        with torch.device("meta"):
            backbone = SwinV2Config(name=name).build(image_size=(192, 192), in_channels=3).backbone
        there = [
            f"{s}.{b}"
            for s, layer in enumerate(backbone.layers)
            for b, block in enumerate(layer.blocks)
            if hasattr(block, "norm3")
        ]
        assert there == found


def test_the_further_norm_normalises_what_leaves_the_block() -> None:
    encoder, seen = _small(extra_norm_every=3).eval(), []
    block = encoder.backbone.layers[1].blocks[0]
    block.register_forward_hook(lambda module, inputs, output: seen.append((inputs[0], output)))
    with torch.no_grad():
        images = torch.randn(1, 3, 64, 96)
        whole = encoder.backbone.forward_features(images)
        assert torch.allclose(encoder(images), whole.permute(0, 3, 1, 2), atol=1e-5)
        (given, left), _ = seen  # timm's way first, then ours
        plain = given + block.norm1(block._attn(given))
        plain = plain + block.norm2(block.mlp(plain))
        mean, variance = plain.mean(-1, keepdim=True), plain.var(-1, unbiased=False, keepdim=True)
        expected = (plain - mean) / (variance + 1e-5).sqrt() * block.norm3.weight + block.norm3.bias
    assert torch.allclose(left, expected, atol=1e-5)


def test_without_further_norms_it_is_timms_own_swinv2() -> None:
    import timm

    encoder = _small(extra_norm_every=0).eval()
    arguments = {k: v for k, v in encoder.architecture.arguments.items() if k != "extra_norm_every"}
    plain = timm.create_model("swinv2_tiny_window8_256", **arguments).eval()
    plain.load_state_dict(encoder.backbone.state_dict(), strict=True)
    images = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        assert torch.allclose(plain.forward_features(images).permute(0, 3, 1, 2), encoder(images), atol=1e-5)


def test_attention_a_few_windows_at_a_time_changes_neither_result_nor_gradient() -> None:
    whole, parts = _small().train(), _small(sequential_stages=2).train()
    parts.load_state_dict(whole.state_dict(), strict=True)
    for layer in parts.backbone.layers[:2]:
        for block in layer.blocks:
            block.attn.windows_at_once = 5  # does not divide the 96 windows of the first stage
    images = torch.randn(2, 3, 64, 96)
    answers = []
    for encoder in (whole, parts):
        out = encoder(images)
        out.square().sum().backward()
        answers.append([out, *(parameter.grad for parameter in encoder.parameters())])
    for one, other in zip(*answers, strict=True):
        assert torch.allclose(one, other, rtol=1e-4, atol=1e-5)


def test_the_position_bias_can_be_continued_from_pretrained_windows() -> None:
    encoder = _small(pretrained_windows=(2, 2, 2))
    table = encoder.backbone.layers[0].blocks[0].attn.relative_coords_table
    assert table.abs().max().item() == pytest.approx(torch.log2(torch.tensor(8.0 * 3 / 1 + 1)).item() / 3)


def test_extra_norms_are_refused_for_a_network_that_has_none() -> None:
    with pytest.raises(ValueError, match="extra_norm_every"):
        SwinV2Config(extra_norm_every=6, **SMALL).build(image_size=(64, 64), in_channels=3)
