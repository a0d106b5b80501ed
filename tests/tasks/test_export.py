import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime  # pyright: ignore[reportMissingTypeStubs]
import pytest
import timm
import torch

from simmim.encoders import SwinV2Config
from simmim.tasks.export import export_weights
from simmim.tasks.load import load, load_encoder
from simmim.tasks.passport import import_weights
from simmim.weights import EncoderFile, save_encoder
from simmim.weights.adapt import Wanted
from simmim.weights.passport import read_passport
from simmim.weights.pickles import read_foreign
from weights.foreign import huggingface_model, official_case


@pytest.mark.parametrize("kind", ["swin", "swinv2", "vit"])
def test_the_official_layout_and_back_is_equal_bit_for_bit(kind: str, tmp_path: Path) -> None:
    case = official_case(kind, tmp_path)
    import_weights(case.path, out=tmp_path / "run")
    export_weights(tmp_path / "run", to="official", out=tmp_path / "out")
    back = read_foreign(tmp_path / "out" / "checkpoint.pth").tensors
    assert back.keys() == case.state.keys()
    assert all(torch.equal(back[name], case.state[name]) for name in back)
    assert all(back[name].dtype == case.state[name].dtype for name in back)
    assert torch.equal(
        load(tmp_path / "out" / "checkpoint.pth")(case.images, case.mask).loss,
        load(case.path)(case.images, case.mask).loss,
    )


@pytest.mark.parametrize("kind", ["swin", "swinv2", "vit"])
def test_a_hugging_face_model_comes_back_the_same(kind: str, tmp_path: Path) -> None:
    theirs: Any = huggingface_model(kind)
    theirs.save_pretrained(tmp_path / "in")
    done = export_weights(tmp_path / "in", to="hf", out=tmp_path / "out")
    assert done.difference < 1e-5
    again: Any = type(theirs).from_pretrained(tmp_path / "out").eval()
    before = theirs.state_dict()
    assert all(torch.equal(tensor, before[name]) for name, tensor in again.state_dict().items())
    images = torch.randn(2, 3, 32, 32)
    mask = torch.rand(2, (32 // theirs.config.patch_size) ** 2) < 0.5
    with torch.no_grad():
        both = [model(images, bool_masked_pos=mask).loss for model in (theirs, again)]
    assert torch.allclose(*both)


def test_the_papers_vit_goes_to_hugging_face_as_an_encoder(tmp_path: Path) -> None:
    case = official_case("vit", tmp_path)
    done = export_weights(case.path, to="hf", out=tmp_path / "out")
    assert "predicts vision tokens" in done.notes[0]
    assert json.loads((tmp_path / "out" / "config.json").read_text())["architectures"] == ["BeitModel"]


def test_timm_loads_the_folder_with_its_own_words(tmp_path: Path) -> None:
    case = official_case("swin", tmp_path)
    export_weights(case.path, to="timm", out=tmp_path / "out")
    theirs = timm.create_model(f"local-dir:{tmp_path / 'out'}", pretrained=True).eval()
    ours: Any = load_encoder(case.path)
    with torch.no_grad():
        assert torch.equal(theirs(case.images), ours(case.images))
    assert theirs.pretrained_cfg["input_size"] == (3, 64, 64)
    assert tuple(theirs.pretrained_cfg["mean"]) == (0.485, 0.456, 0.406)
    card = (tmp_path / "out" / "README.md").read_text()
    assert "timm.create_model" in card
    assert "kind: swin" in card


def test_the_folder_may_be_the_one_where_one_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case = official_case("swin", tmp_path)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert set(export_weights(case.path, to="timm", out=".").files) == {"README.md", "config.json", "model.safetensors"}
    assert (tmp_path / "here" / "config.json").is_file()


def test_onnx_runs_any_number_of_images(tmp_path: Path) -> None:
    case = official_case("swin", tmp_path)
    export_weights(case.path, to="onnx", out=tmp_path / "out")
    session: Any = onnxruntime.InferenceSession(tmp_path / "out" / "encoder.onnx")
    images = torch.randn(5, 3, 64, 64)
    features, pooled = session.run(None, {"images": images.numpy()})
    with torch.no_grad():
        ours = load(case.path).encoder(images)
    assert np.abs(features - ours.numpy()).max() < 1e-4
    assert np.abs(pooled - ours.mean(dim=(2, 3)).numpy()).max() < 1e-4


def test_onnx_of_a_network_that_attends_a_few_windows_at_a_time_runs_any_number_of_images(tmp_path: Path) -> None:
    shape: dict[str, Any] = {"patch_size": 2, "embed_dim": 16, "depths": (2, 2), "num_heads": (2, 4), "window": 4}
    config = SwinV2Config(name="swinv2_giant_window12_192", sequential_stages=2, **shape)
    encoder = config.build(image_size=(32, 32), in_channels=3).eval()
    made = encoder.architecture
    about = EncoderFile(made.name, made.arguments, (32, 32), 3, (0.5,) * 3, (0.2,) * 3, recipe="", version="0")
    save_encoder(tmp_path / "encoder.safetensors", encoder.backbone, about)
    export_weights(tmp_path / "encoder.safetensors", to="onnx", out=tmp_path / "out")
    session: Any = onnxruntime.InferenceSession(tmp_path / "out" / "encoder.onnx")
    images = torch.randn(5, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        ours = encoder(images)
    for count in (1, 2, 5):
        said = session.run(None, {"images": images[:count].numpy()})[0]
        torch.testing.assert_close(torch.from_numpy(said), ours[:count], rtol=1e-4, atol=1e-4)


def test_the_official_layout_keeps_how_pixels_are_normalised(tmp_path: Path) -> None:
    case = official_case("swin", tmp_path)
    assert not any("mean and std" in note for note in read_passport(case.path).notes)
    state = {**read_foreign(case.path).tensors}
    config = {"DATA": {"IMG_SIZE": 64, "MEAN": [0.1, 0.2, 0.3], "STD": [0.4, 0.5, 0.6]}}
    torch.save({"model": state, "config": config}, tmp_path / "own.pth")
    export_weights(tmp_path / "own.pth", to="official", out=tmp_path / "out")
    encoder: Any = load_encoder(tmp_path / "out" / "checkpoint.pth")
    assert encoder.pretrained_cfg["mean"] == (0.1, 0.2, 0.3)
    assert encoder.pretrained_cfg["std"] == (0.4, 0.5, 0.6)


def test_what_a_layout_cannot_hold_is_said(tmp_path: Path) -> None:
    huggingface_model("vit").save_pretrained(tmp_path / "in")
    with pytest.raises(ValueError, match="cannot hold this one"):
        export_weights(tmp_path / "in", to="official", out=tmp_path / "out")
    case = official_case("swin", tmp_path)
    import_weights(case.path, out=tmp_path / "wide", wanted=Wanted(image_size=(64, 128)))
    with pytest.raises(ValueError, match="take square images"):
        export_weights(tmp_path / "wide", to="hf", out=tmp_path / "out")
    shape = {"dim": 8, "depths": (2, 2), "heads": (1, 2), "size": 32, "window": 8}
    small = official_case("swin", tmp_path / "wide", config=False, shape=shape)
    with pytest.raises(ValueError, match="windows of 8 tokens in every stage, and the last map of this one is 4x4"):
        export_weights(small.path, to="hf", out=tmp_path / "small")
    pooled = timm.create_model("vit_tiny_patch16_224", img_size=32, num_classes=2, global_pool="avg")
    torch.save(pooled.state_dict(), tmp_path / "pooled.pth")
    with pytest.raises(ValueError, match="classifies by the class token, and this one by the mean"):
        export_weights(tmp_path / "pooled.pth", to="hf", out=tmp_path / "vit")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a").touch()
    with pytest.raises(ValueError, match="is not empty"):
        export_weights(case.path, to="timm", out=tmp_path / "full")
    left = {path.name for path in tmp_path.iterdir()}
    assert not left & {"out", "small", "vit"}, "an export that failed leaves nothing"
    assert not [name for name in left if name.startswith(".")]
