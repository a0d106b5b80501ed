"""A classifier made of an encoder's file: what it keeps of the encoder, at its own size and at another."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from simmim.encoders import BeitConfig, EncoderConfig, SwinConfig, SwinV2Config, ViTConfig, layers_of
from simmim.tasks.classifier import BuiltClassifier, Classifier, build_classifier
from simmim.tasks.load import load_encoder
from simmim.weights import EncoderFile, read_encoder
from tasks.encoders import encoder_file

_SWIN: dict[str, Any] = {"patch_size": 4, "embed_dim": 12, "depths": (1, 2), "num_heads": (1, 2), "window": 4}
_VIT: dict[str, Any] = {"patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2}
VIT = ViTConfig(name="vit_tiny_patch16_224", **_VIT)
FAMILIES = [VIT, BeitConfig(**_VIT), SwinConfig(**_SWIN), SwinV2Config(**_SWIN)]
IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def read(config: EncoderConfig, folder: Path) -> tuple[Path, Mapping[str, torch.Tensor], EncoderFile]:
    run = encoder_file(folder / config.kind, config, size=(32, 32), channels=3)
    return run, *read_encoder(run / "encoder.safetensors")


def build(
    about: EncoderFile, weights: Mapping[str, torch.Tensor] | None, size: int = 32, **more: Any
) -> BuiltClassifier:
    settings: dict[str, Any] = {"classes": 5, "drop_path": 0.0, "image_size": (size, size), **more}
    return build_classifier(about, weights, **settings)


def before_its_norm(model: Any, images: torch.Tensor) -> torch.Tensor:
    """What the blocks make of images: ViT's and BEiT's final norm moves behind the pooling."""
    kept = model.norm
    model.norm = torch.nn.Identity()
    with torch.no_grad():
        features = model.eval().forward_features(images)
    model.norm = kept
    return features


@pytest.mark.parametrize("config", FAMILIES, ids=lambda config: config.kind)
def test_a_classifier_sees_what_its_encoder_sees(config: EncoderConfig, tmp_path: Path) -> None:
    run, weights, about = read(config, tmp_path)
    backbone: Any = build(about, weights).backbone
    theirs = before_its_norm(load_encoder(run), IMAGES)
    assert torch.allclose(before_its_norm(backbone, IMAGES), theirs, atol=1e-5)
    assert backbone(IMAGES).shape == (2, 5)


def test_beits_blocks_begin_with_the_shared_table_and_can_part_from_it(tmp_path: Path) -> None:
    _, weights, about = read(BeitConfig(**_VIT), tmp_path)
    built = build(about, weights)
    tables = [p for name, p in built.backbone.named_parameters() if name.endswith("attn.relative_position_bias_table")]
    assert len(tables) == 2
    assert all(torch.equal(table, weights["rel_pos_bias.relative_position_bias_table"]) for table in tables)
    assert tables[0].data_ptr() != tables[1].data_ptr()
    assert built.arguments["use_rel_pos_bias"]
    assert not built.arguments["use_shared_rel_pos_bias"]


@pytest.mark.parametrize("config", FAMILIES, ids=lambda config: config.kind)
def test_a_classifier_at_another_size_is_made_again_from_what_its_file_says(
    config: EncoderConfig, tmp_path: Path
) -> None:
    _, weights, about = read(config, tmp_path)
    built = build(about, weights, size=64)
    images = torch.randn(2, 3, 64, 64)
    again: Any = EncoderFile(
        about.architecture, built.arguments, (64, 64), 3, about.mean, about.std, recipe="", version=""
    ).create()
    again.load_state_dict(built.backbone.state_dict(), strict=True)
    with torch.no_grad():
        assert torch.equal(again.eval()(images), built.backbone.eval()(images))


def test_windows_grow_with_the_image_unless_one_is_given(tmp_path: Path) -> None:
    _, weights, about = read(SwinConfig(**_SWIN), tmp_path)
    for more, tables in (({}, [225, 225]), ({"window": 4}, [49, 49]), ({"window": 16}, [961, 225])):
        parameters = build(about, weights, size=64, **more).backbone.named_parameters()
        assert [len(p) for name, p in parameters if name.endswith("bias_table")] == [tables[0], *tables[1:] * 2]
    with pytest.raises(ValueError, match=r"windows of 4 tokens at 32 px would be 4\.5 tokens at 36 px; set window=4"):
        build(about, weights, size=36)


def test_a_table_that_keeps_its_window_is_left_as_it_is_and_another_is_stretched(tmp_path: Path) -> None:
    """A bias that grows in a straight line stays one, and its ends stay its ends."""
    _, weights, about = read(SwinConfig(**_SWIN), tmp_path)
    name = "layers.0.blocks.0.attn.relative_position_bias_table"
    slope = torch.linspace(-1, 1, 7)
    weights = {**weights, name: slope.repeat_interleave(7)[:, None].contiguous()}
    same = dict(build(about, weights, size=64, window=4).backbone.named_parameters())[name]
    assert torch.equal(same, weights[name])
    table = dict(build(about, weights, size=64).backbone.named_parameters())[name].detach().view(15, 15)
    assert torch.allclose(table, table[:, :1].expand(-1, 15), atol=1e-4)
    assert float(table[0, 0]) == pytest.approx(-1, abs=0.05)
    assert float(table[-1, 0]) == pytest.approx(1, abs=0.05)
    assert (table[2:-1, 0] >= table[1:-2, 0]).all()
    assert (table[4:-4, 0] > table[3:-5, 0]).all()


def test_swinv2_remembers_the_windows_of_its_pre_training_over_two_stages(tmp_path: Path) -> None:
    _, weights, about = read(SwinV2Config(**_SWIN), tmp_path)
    first = build(about, weights, size=64)
    assert first.arguments["pretrained_window_sizes"] == (4, 4)
    about = EncoderFile(about.architecture, first.arguments, (64, 64), 3, about.mean, about.std, recipe="", version="")
    second = build(about, first.backbone.state_dict(), size=128)
    assert second.arguments["pretrained_window_sizes"] == (4, 4)
    assert second.arguments["window_size"] == 16


def test_the_head_of_a_classifier_is_left_behind_and_the_rest_is_kept(tmp_path: Path) -> None:
    """The intermediate supervised stage: also where both stages have as many classes."""
    _, weights, about = read(VIT, tmp_path)
    first = build(about, weights)
    torch.nn.init.normal_(first.backbone.get_parameter("fc_norm.weight"))
    torch.nn.init.ones_(first.backbone.get_parameter("head.weight"))
    about = EncoderFile(about.architecture, first.arguments, (32, 32), 3, about.mean, about.std, recipe="", version="")
    for classes in (5, 3):
        second = build(about, first.backbone.state_dict(), classes=classes).backbone
        assert torch.equal(second.get_parameter("fc_norm.weight"), first.backbone.get_parameter("fc_norm.weight"))
        assert second.get_parameter("head.weight").shape == (classes, 24)
        assert float(second.get_parameter("head.weight").detach().std()) > 0


def test_layers_of_another_family_are_those_of_timm() -> None:
    import timm

    layers = layers_of(timm.create_model("convnext_atto", num_classes=3))
    assert layers.layer_of("stem.0.weight") == 0
    assert layers.layer_of("head.fc.weight") == layers.num_layers + 1
    ids = [layers.layer_of(f"stages.2.blocks.{number}.conv_dw.weight") for number in range(6)]
    assert ids == sorted(ids)
    with pytest.raises(ValueError, match="Linear does not say which layers it has"):
        layers_of(torch.nn.Linear(1, 1))


def test_the_average_follows_by_the_published_rule() -> None:
    torch.manual_seed(0)
    model = Classifier(torch.nn.Linear(3, 2), label_smoothing=0.0, ema=0.9)
    expected = None
    for step in range(5):
        with torch.no_grad():
            model.backbone.get_parameter("weight").add_(torch.randn(2, 3))
        weight = model.backbone.get_parameter("weight").detach().clone()
        expected = weight if expected is None else 0.9 * expected + 0.1 * weight
        model.move_average(step)
        assert torch.allclose(model.judged.get_parameter("weight"), expected, atol=1e-6)
    assert not model.judged.get_parameter("weight").requires_grad


def test_the_loss_against_shares_of_classes_is_the_soft_target_cross_entropy() -> None:
    from timm.loss import SoftTargetCrossEntropy

    torch.manual_seed(0)
    model = Classifier(torch.nn.Flatten(), label_smoothing=0.3)
    logits, wanted = torch.randn(4, 3, 1, 1), torch.rand(4, 3).softmax(dim=1)
    said = model(logits, wanted)
    assert torch.allclose(said.loss, SoftTargetCrossEntropy()(logits.flatten(1), wanted))
    assert float(said.accuracy) == float((logits.flatten(1).argmax(1) == wanted.argmax(1)).float().mean())
