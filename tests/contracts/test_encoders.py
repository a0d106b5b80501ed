from typing import Any

import pytest
import timm
import torch
from torch import nn

from reference.parts import Case, build, encoder_cases, images_for
from simmim.encoders import Encoder, SwinEncoder
from simmim.heads import LinearHeadConfig
from simmim.model import SimMIM
from simmim.targets import PixelTarget

CASES = list(encoder_cases())


@pytest.fixture(params=CASES, ids=[case[0] for case in CASES])
def case(request: pytest.FixtureRequest) -> Case:
    return request.param


def _as_map(backbone: Any, features: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    """timm's features as (batch, channels, rows, columns), by timm's own account of its layout."""
    if features.ndim == 4:
        return features.permute(0, 3, 1, 2) if getattr(backbone, "output_fmt", "NHWC") == "NHWC" else features
    return features[:, getattr(backbone, "num_prefix_tokens", 0) :].transpose(1, 2).reshape(shape)


def _same(encoder: Encoder, ours: torch.Tensor, theirs: torch.Tensor) -> bool:
    """Swin's tokens move in another way than timm moves them, which changes the rounding; all others are equal bit by bit."""
    if isinstance(encoder, SwinEncoder):
        return torch.allclose(ours, theirs, rtol=0, atol=1e-5)
    return torch.equal(ours, theirs)


def test_the_two_halves_give_exactly_what_timm_gives(case: Case) -> None:
    encoder, images = build(case), images_for(case)
    with torch.no_grad():
        ours = encoder.encode(encoder.embed(images))
        theirs = _as_map(encoder.backbone, encoder.backbone.forward_features(images), ours.shape)
    assert _same(encoder, ours, theirs)
    assert ours.std() > 0


def test_the_backbone_is_the_plain_timm_model_of_the_same_arguments(case: Case) -> None:
    encoder = build(case)
    plain = timm.create_model(encoder.architecture.name, **encoder.architecture.arguments)
    plain.load_state_dict(encoder.backbone.state_dict(), strict=True)
    images = images_for(case)
    with torch.no_grad():
        ours = encoder(images)
        assert _same(encoder, _as_map(plain, plain.eval().forward_features(images), ours.shape), ours)


def test_the_declared_numbers_are_true(case: Case) -> None:
    encoder, (_, _, size, channels) = build(case), case
    with torch.no_grad():
        tokens = encoder.embed(images_for(case))
        features = encoder.encode(tokens)
    assert (encoder.image_size, encoder.in_channels) == (size, channels)
    assert tokens.shape == (2, size[0] // encoder.patch_size, size[1] // encoder.patch_size, encoder.embed_dim)
    assert features.shape == (2, encoder.num_features, size[0] // encoder.stride, size[1] // encoder.stride)


def test_a_token_is_the_patch_of_the_image_it_lies_on(case: Case) -> None:
    """Change one patch of the image: its token changes, those far away do not (overlapping embeddings reach one further)."""
    encoder, images = build(case), images_for(case, batch=1)
    patch, (rows, columns) = encoder.patch_size, (side // encoder.patch_size for side in case[2])
    changed = images.clone()
    row, column = rows - 1, columns // 2
    changed[:, :, row * patch : (row + 1) * patch, column * patch : (column + 1) * patch] += 1
    with torch.no_grad():
        moved = (encoder.embed(changed) - encoder.embed(images)).abs().amax(dim=-1)[0] > 0
    assert moved[row, column]
    far = [(r, c) for r in range(rows) for c in range(columns) if max(abs(r - row), abs(c - column)) > 1]
    assert far
    assert not any(moved[place] for place in far)


def test_the_feature_map_is_laid_out_as_the_image_is(case: Case) -> None:
    """The gradient of a feature cell is largest, on average over cells, in the part of the image it lies on."""
    encoder, stride = build(case), build(case).stride
    hits = []
    for row, column in ((0, 0), (case[2][0] // stride - 1, 0), (0, case[2][1] // stride - 1)):
        images = images_for(case, batch=1).requires_grad_()
        weights = torch.randn(encoder.num_features, generator=torch.Generator().manual_seed(2))
        (encoder(images)[0, :, row, column] * weights).sum().backward()
        assert images.grad is not None
        strength = images.grad.abs().sum(dim=1, keepdim=True)
        cells = nn.functional.avg_pool2d(strength, stride)[0, 0]
        hits.append(divmod(int(cells.argmax()), cells.shape[1]) == (row, column))
    assert all(hits)


def test_the_pyramid_goes_from_fine_to_coarse_and_ends_at_the_feature_map(case: Case) -> None:
    encoder, images = build(case), images_for(case)
    with torch.no_grad():
        maps = encoder.pyramid(images)
    assert len(maps) >= 2
    sides = [tuple(item.shape[2:]) for item in maps]
    assert sides == sorted(sides, reverse=True)
    for item in maps:
        assert item.shape[0] == 2
        assert (case[2][0] // item.shape[2], case[2][0] % item.shape[2]) == (case[2][1] // item.shape[3], 0)
    assert sides[0][0] * encoder.patch_size == case[2][0]
    assert sides[-1] == tuple(side // encoder.stride for side in case[2])
    assert maps[-1].shape[1] == encoder.num_features


def test_images_of_another_size_or_channels_are_refused(case: Case) -> None:
    encoder, (_, _, (height, width), channels) = build(case), case
    with pytest.raises(ValueError, match=rf"built for {channels} channels of {height}x{width} px"):
        encoder.embed(torch.zeros(1, channels, width * 2, height * 2))
    with pytest.raises(ValueError, match=rf"images have {channels + 1} channels of {height}x{width} px"):
        encoder.embed(torch.zeros(1, channels + 1, height, width))


def test_every_trained_parameter_has_a_gradient_after_one_pass(case: Case) -> None:
    encoder = build(case).train()
    model = SimMIM(
        encoder=encoder,
        head=LinearHeadConfig(),
        target=PixelTarget().build(mean=(0.0,) * case[3], std=(1.0,) * case[3]),
    )
    images = images_for(case)
    mask = torch.rand(*encoder.embed(images).shape[:3], generator=torch.Generator().manual_seed(3)) < 0.5
    model(images, mask).loss.backward()
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    assert "mask_token" in trained
    assert [name for name, p in trained.items() if p.grad is None or not p.grad.isfinite().all()] == []
    assert sum(p.numel() for p in trained.values()) > 0.95 * sum(p.numel() for p in model.parameters())


def _is_random(name: str, parameter: nn.Parameter) -> bool:
    """Matrices start at random; BEiT's position table starts at zero, as published."""
    named_zero = ("rel_pos_bias", "logit_scale", "cls_token", "reg_token", "register_tokens", "dist_token")
    return parameter.ndim >= 2 and not any(word in name for word in named_zero)


def test_every_weight_is_initialised_and_random_where_it_should_be(case: Case) -> None:
    parameters = dict(build(case).named_parameters())
    assert [name for name, p in parameters.items() if not p.isfinite().all()] == []
    matrices = {name: p for name, p in parameters.items() if _is_random(name, p)}
    assert len(matrices) > 5
    assert [name for name, p in matrices.items() if p.unique().numel() < min(p.numel() / 4, 50)] == []
    assert [name for name, p in matrices.items() if not 1e-4 < p.std() < 1] == []


def test_another_seed_makes_other_weights_and_the_same_seed_the_same(case: Case) -> None:
    _, config, size, channels = case
    first = build(case)
    torch.manual_seed(0)
    again: Encoder = config.build(image_size=size, in_channels=channels)
    other: Encoder = config.build(image_size=size, in_channels=channels)
    name = next(n for n, p in first.named_parameters() if _is_random(n, p))
    assert torch.equal(first.get_parameter(name), again.get_parameter(name))
    assert not torch.equal(first.get_parameter(name), other.get_parameter(name))


def test_encoding_is_repeatable_and_leaves_nothing_behind(case: Case) -> None:
    encoder, images = build(case), images_for(case)
    with torch.no_grad():
        tokens = encoder.embed(images)
        first = encoder.encode(tokens)
        encoder.encode(torch.zeros_like(tokens))
        assert torch.equal(encoder.encode(tokens), first)
        assert torch.equal(encoder(images), first)
