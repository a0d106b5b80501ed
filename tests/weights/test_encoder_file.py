import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from reference.parts import Case, build, encoder_cases, images_for
from simmim.encoders import Encoder
from simmim.tensors import DamagedFile, write_tensors
from simmim.weights import EncoderFile, load_encoder_weights, read_encoder, resize_backbone, save_encoder

CASES = list(encoder_cases())
CASE = CASES[0]


def about(encoder: Encoder) -> EncoderFile:
    channels = encoder.in_channels
    return EncoderFile(
        architecture=encoder.architecture.name,
        arguments=encoder.architecture.arguments,
        image_size=encoder.image_size,
        channels=channels,
        mean=(0.1,) * channels,
        std=(0.2,) * channels,
        recipe="task: pretrain\nname: blåbær\n",
        version="0.0.1",
    )


@pytest.fixture(params=CASES, ids=[case[0] for case in CASES])
def case(request: pytest.FixtureRequest) -> Case:
    return request.param


def saved(encoder: Encoder, folder: Path) -> Path:
    save_encoder(folder / "encoder.safetensors", encoder.backbone, about(encoder))
    return folder / "encoder.safetensors"


def test_an_encoder_is_read_as_it_was_saved(case: Case, tmp_path: Path) -> None:
    encoder = build(case)
    weights, said = read_encoder(saved(encoder, tmp_path))
    assert said == about(encoder)
    state = encoder.backbone.state_dict()
    assert weights.keys() == state.keys()
    assert all(torch.equal(weights[name], state[name]) for name in state)


def test_plain_timm_takes_the_file_by_name_and_says_the_same(case: Case, tmp_path: Path) -> None:
    """As a person would who has never heard of simmim: safetensors, json and timm alone."""
    encoder = build(case)
    path = saved(encoder, tmp_path)
    with safe_open(path, framework="pt") as file:
        words = file.metadata()
    model = timm.create_model(words["architecture"], **json.loads(words["arguments"]))
    model.load_state_dict(load_file(path), strict=True)
    images = images_for(case)
    with torch.no_grad():
        theirs = model.eval().forward_features(images)
        assert torch.equal(theirs, encoder.backbone.forward_features(images))


def test_the_words_of_a_file_can_be_read_by_any_program(tmp_path: Path) -> None:
    with safe_open(saved(build(CASE), tmp_path), framework="pt") as file:
        words = file.metadata()
    assert words.keys() == {
        "architecture", "arguments", "channels", "classes", "digest", "image_size", "mean", "recipe", "std", "version",
    }  # fmt: skip
    assert words["architecture"] == "vit_tiny_patch16_224"
    assert json.loads(words["arguments"])["embed_dim"] == 24
    assert (json.loads(words["image_size"]), json.loads(words["channels"])) == ([32, 32], 3)
    assert json.loads(words["mean"]) == [0.1, 0.1, 0.1]
    assert words["recipe"] == "task: pretrain\nname: blåbær\n"


def test_a_backbone_is_made_again_from_its_file(tmp_path: Path) -> None:
    encoder = build(CASE)
    weights, said = read_encoder(saved(encoder, tmp_path))
    model = said.create()
    load_encoder_weights(model, weights)
    images = images_for(CASE)
    with torch.no_grad():
        assert torch.equal(model.eval().forward_features(images), encoder.backbone.forward_features(images))


def test_a_classifier_is_made_of_an_encoder(tmp_path: Path) -> None:
    weights, said = read_encoder(saved(build(CASE), tmp_path))
    model: Any = said.create(num_classes=5, global_pool="avg")
    load_encoder_weights(model, weights, replaced=("head.", "fc_norm.", "norm."))
    assert model(images_for(CASE)).shape == (2, 5)
    assert torch.equal(model.blocks[0].mlp.fc1.weight, weights["blocks.0.mlp.fc1.weight"])


@pytest.mark.parametrize("size", [(64, 64), (32, 96)])
def test_a_backbone_can_be_brought_to_another_image_size(size: tuple[int, int]) -> None:
    backbone: Any = build(CASE).backbone
    with torch.no_grad():
        backbone.pos_embed.copy_(torch.arange(24.0).expand_as(backbone.pos_embed))
    resized: Any = resize_backbone(backbone, size, was=(32, 32))
    assert resized.pos_embed.shape[1] == size[0] // 8 * (size[1] // 8) + 1
    assert torch.allclose(resized.pos_embed, torch.arange(24.0), atol=1e-4)  # what is the same everywhere stays
    assert resized.forward_features(torch.zeros(1, 3, *size)).shape[1] == resized.pos_embed.shape[1]


def test_a_backbone_of_the_right_size_is_left_alone() -> None:
    backbone = build(CASE).backbone
    before = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
    assert resize_backbone(backbone, (32, 32), was=(32, 32)) is backbone
    assert all(torch.equal(tensor, before[name]) for name, tensor in backbone.state_dict().items())


def test_a_backbone_that_cannot_be_resized_is_said() -> None:
    with pytest.raises(ValueError, match=r"Linear cannot be brought from \(32, 32\) to \(64, 64\) px"):
        resize_backbone(torch.nn.Linear(1, 1), (64, 64), was=(32, 32))


def _refused(weights: dict[str, torch.Tensor]) -> str:
    model = build(CASE).backbone
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(ValueError, match="the weights do not fit the model") as caught:
        load_encoder_weights(model, weights)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    return str(caught.value)


def test_a_weight_that_is_missing_left_over_or_of_another_shape_is_named() -> None:
    weights = {name: tensor + 1 for name, tensor in build(CASE).backbone.state_dict().items()}
    del weights["norm.weight"]
    weights["decoder.weight"] = torch.zeros(1)
    weights["cls_token"] = torch.zeros(1, 1, 7)
    said = _refused(weights)
    assert "missing: norm.weight" in said
    assert "left over: decoder.weight" in said
    assert "cls_token: (1, 1, 7) in the file, (1, 1, 24) in the model" in said


def test_of_many_problems_the_first_are_named_and_the_rest_counted() -> None:
    count = len(build(CASE).backbone.state_dict())
    assert f"and {count - 4} more" in _refused({})


def test_a_file_that_is_no_encoder_is_refused(tmp_path: Path) -> None:
    write_tensors(tmp_path / "x.safetensors", {"w": torch.ones(1)}, {"state": "{}"})
    with pytest.raises(DamagedFile, match="is not an encoder: it does not say its architecture"):
        read_encoder(tmp_path / "x.safetensors")


def test_the_names_of_classes_are_kept(tmp_path: Path) -> None:
    encoder = build(CASE)
    words = replace(about(encoder), classes=("æble", "pear, green", "3"))
    save_encoder(tmp_path / "classifier.safetensors", encoder.backbone, words)
    assert read_encoder(tmp_path / "classifier.safetensors")[1].classes == ("æble", "pear, green", "3")
