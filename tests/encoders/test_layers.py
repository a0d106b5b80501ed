"""Every block's features are those that timm's own forward_intermediates gives."""

from typing import Any

import pytest
import timm
import torch

from simmim.encoders.layers import Layers, Place, blocks_of

SIZE = 32


def _model(name: str, **arguments: Any) -> Any:
    torch.manual_seed(3)
    return timm.create_model(name, img_size=SIZE, num_classes=0, **arguments).eval()


def _images() -> torch.Tensor:
    return torch.randn(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(5))


PLAIN = {"patch_size": 8, "embed_dim": 24, "depth": 4, "num_heads": 2}


@pytest.mark.parametrize("name", ["vit_base_patch16_224", "beit_base_patch16_224", "vit_base_patch16_dinov3"])
def test_blocks_of_one_size_are_pooled_as_by_hand(name: str) -> None:
    model, images = _model(name, **PLAIN), _images()
    layers = Layers(model)
    with torch.no_grad():
        ours = layers(images, layers.places())
        final, raw = model.forward_intermediates(images, output_fmt="NLC", return_prefix_tokens=True)
    assert list(ours) == [Place(layer, way) for layer in (1, 2, 3, 4) for way in ("mean", "cls")]
    for layer, (patches, prefix) in enumerate(raw[:-1], start=1):
        torch.testing.assert_close(ours[Place(layer, "mean")], patches.mean(dim=1))
        torch.testing.assert_close(ours[Place(layer, "cls")], prefix[:, 0])
    torch.testing.assert_close(ours[Place(4, "mean")], final[:, model.num_prefix_tokens :].mean(dim=1))
    torch.testing.assert_close(ours[Place(4, "cls")], final[:, 0])
    assert not torch.allclose(ours[Place(3, "mean")], ours[Place(4, "mean")])


@pytest.mark.parametrize("name", ["swin_tiny_patch4_window7_224", "swinv2_tiny_window8_256"])
def test_the_last_block_of_every_stage_is_timms(name: str) -> None:
    model = _model(name, window_size=4, embed_dim=12, depths=(2, 1, 3), num_heads=(2, 2, 2))
    images, layers = _images(), Layers(model)
    assert (layers.depth, layers.poolings) == (6, ("mean",))
    with torch.no_grad():
        ours = layers(images, layers.places())
        final, stages = model.forward_intermediates(images)
    assert [one.shape[1] for one in ours.values()] == [12, 12, 24, 48, 48, 48]
    for layer, stage in ((2, stages[0]), (3, stages[1])):
        torch.testing.assert_close(ours[Place(layer, "mean")], stage.mean(dim=(2, 3)))
    torch.testing.assert_close(ours[Place(6, "mean")], final.mean(dim=(1, 2)))


def test_a_backbone_of_unknown_make_has_its_last_layer() -> None:
    model = timm.create_model("resnet10t", num_classes=0).eval()
    del model.layer4  # what is left has no row of blocks
    model.layer4 = torch.nn.Identity()
    assert blocks_of(model) == []
    layers = Layers(model)
    with torch.no_grad():
        (found,) = layers(_images(), layers.places()).values()
        torch.testing.assert_close(found, model.forward_features(_images()).mean(dim=(2, 3)))


def test_reading_leaves_no_hook_behind_even_when_it_fails() -> None:
    model = _model("vit_base_patch16_224", **PLAIN)
    layers = Layers(model)
    layers(_images(), layers.places())
    with pytest.raises(AssertionError):
        layers(_images()[..., :16], layers.places())
    assert not any(block._forward_hooks for block in blocks_of(model))


def test_what_is_not_there_is_said() -> None:
    layers = Layers(
        _model("swin_tiny_patch4_window7_224", window_size=4, embed_dim=12, depths=(1, 1), num_heads=(2, 2))
    )
    assert layers.places(layer=2) == [Place(2, "mean")]
    with pytest.raises(ValueError, match="layers 1 to 2"):
        layers.places(layer=0)
    with pytest.raises(ValueError, match="no class token; allowed: mean"):
        layers.places(pooling="cls")
    with pytest.raises(ValueError, match="'max' is not possible"):
        layers.places(pooling="max")
