from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from reference.adamw import AdamW
from simmim.encoders import BeitConfig, EncoderConfig, SwinConfig, SwinV2Config, ViTConfig
from simmim.engine.optimizer import OptimizerConfig, build_adamw, clip_gradients, group_parameters, set_lr
from simmim.heads import LinearHeadConfig
from simmim.model import SimMIM
from simmim.targets import PixelTarget

_SWIN: dict[str, Any] = {"patch_size": 2, "embed_dim": 16, "depths": (1, 1), "num_heads": (1, 2), "window": 4}
_VIT: dict[str, Any] = {"patch_size": 8, "embed_dim": 24, "depth": 1, "num_heads": 2}


def model_of(config: EncoderConfig) -> SimMIM:
    encoder = config.build(image_size=(16, 16), in_channels=3)
    return SimMIM(encoder=encoder, head=LinearHeadConfig(), target=PixelTarget().build(mean=(0.0,) * 3, std=(1.0,) * 3))


def decayed_words(config: EncoderConfig, *, as_run: bool = False) -> set[str]:
    """The last two words of the names of what is decayed, everything checked to be in one group."""
    model = model_of(config)
    exempt = model.encoder.no_decay_as_run if as_run else model.encoder.no_decay
    groups = group_parameters(model.named_parameters(), weight_decay=0.05, exempt=exempt)
    assert sorted(name for group in groups for name in group["names"]) == sorted(
        name for name, p in model.named_parameters() if p.requires_grad
    )
    assert {group["weight_decay"] for group in groups} == {0.05, 0.0}
    decayed = {name for group in groups if group["weight_decay"] for name in group["names"]}
    shapes = {name: p.ndim for name, p in model.named_parameters()}
    assert [name for name in decayed if shapes[name] < 2 or name.endswith("bias")] == []
    assert [
        name
        for name in shapes
        if name.endswith(".weight") and shapes[name] >= 2 and "cpb_mlp" not in name and name not in decayed
    ] == []
    assert "head.0.weight" in decayed
    return {word for name in decayed for word in name.split(".")}


SWIN_SPARED = {"mask_token", "relative_position_bias_table"}
V2_SPARED = {"mask_token", "cpb_mlp", "logit_scale"}


def test_swin_decays_neither_its_position_tables_nor_the_mask_token() -> None:
    assert decayed_words(SwinConfig(**_SWIN)) & SWIN_SPARED == set()


def test_swin_decayed_its_position_tables_when_the_official_code_ran() -> None:
    assert decayed_words(SwinConfig(**_SWIN), as_run=True) & SWIN_SPARED == {"relative_position_bias_table"}


def test_swinv2_decays_neither_its_position_network_nor_its_logit_scale() -> None:
    assert decayed_words(SwinV2Config(**_SWIN)) & V2_SPARED == set()


def test_swinv2_decayed_both_when_the_official_code_ran() -> None:
    assert decayed_words(SwinV2Config(**_SWIN), as_run=True) & V2_SPARED == {"cpb_mlp", "logit_scale"}


@pytest.mark.parametrize("as_run", [False, True])
def test_beit_decays_the_mask_token_and_the_position_table_but_not_the_class_token(as_run: bool) -> None:
    words = decayed_words(BeitConfig(**_VIT), as_run=as_run)
    assert words & {"mask_token", "relative_position_bias_table", "cls_token", "gamma_1", "q_bias"} == {
        "mask_token",
        "relative_position_bias_table",
    }


def test_vit_decays_neither_positions_nor_class_token() -> None:
    words = decayed_words(ViTConfig(name="vit_tiny_patch16_224", **_VIT))
    assert words & {"pos_embed", "cls_token"} == set()


def test_frozen_parameters_are_in_no_group() -> None:
    layers = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    layers[0].requires_grad_(False)
    groups = group_parameters(layers.named_parameters(), weight_decay=0.1)
    assert sorted(name for group in groups for name in group["names"]) == ["1.bias", "1.weight"]


def test_every_share_of_the_learning_rate_has_a_group_of_its_own() -> None:
    layers = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    groups = group_parameters(
        layers.named_parameters(), weight_decay=0.1, lr_scale=lambda name: 0.5 if name.startswith("0") else 1.0
    )
    found = {(group["lr_scale"], group["weight_decay"]): group["names"] for group in groups}
    assert found == {(0.5, 0.1): ["0.weight"], (0.5, 0.0): ["0.bias"], (1.0, 0.1): ["1.weight"], (1.0, 0.0): ["1.bias"]}
    optimizer = build_adamw(groups, OptimizerConfig())
    set_lr(optimizer, lambda share: 2e-3 * share)
    assert {(group["lr_scale"], group["lr"]) for group in optimizer.param_groups} == {(0.5, 1e-3), (1.0, 2e-3)}


def test_five_steps_are_those_of_the_published_algorithm() -> None:
    torch.manual_seed(0)
    layer = nn.Linear(5, 3)
    config = OptimizerConfig(weight_decay=0.3, betas=(0.8, 0.95), eps=1e-6)
    optimizer = build_adamw(group_parameters(layer.named_parameters(), weight_decay=config.weight_decay), config)
    by_hand = [
        AdamW(parameter.detach().double().numpy().copy(), decay, betas=(0.8, 0.95), eps=1e-6)
        for parameter, decay in ((layer.weight, 0.3), (layer.bias, 0.0))
    ]
    for lr in (1e-2, 3e-2, 2e-2, 0.0, 1e-3):
        for parameter, reference in zip((layer.weight, layer.bias), by_hand, strict=True):
            parameter.grad = torch.randn_like(parameter)
            reference.step(parameter.grad.double().numpy(), lr)
        set_lr(optimizer, lambda share, lr=lr: lr * share)
        optimizer.step()
    for parameter, reference in zip((layer.weight, layer.bias), by_hand, strict=True):
        assert np.abs(parameter.detach().numpy() - reference.weight).max() < 1e-6


@pytest.mark.parametrize("limit", [0.5, 1e6, None])
def test_the_gradient_of_all_groups_together_is_clipped_once(limit: float | None) -> None:
    layers = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    optimizer = build_adamw(group_parameters(layers.named_parameters(), weight_decay=0.1), OptimizerConfig())
    gradients = {name: torch.randn_like(p) for name, p in layers.named_parameters()}
    for name, parameter in layers.named_parameters():
        parameter.grad = gradients[name].clone()
    norm = sum(float((g.double() ** 2).sum()) for g in gradients.values()) ** 0.5
    assert float(clip_gradients(optimizer, limit)) == pytest.approx(norm, rel=1e-6)
    factor = 1.0 if limit is None or norm <= limit else limit / norm
    for name, parameter in layers.named_parameters():
        assert parameter.grad is not None
        assert torch.allclose(parameter.grad, gradients[name] * factor, rtol=1e-5)
