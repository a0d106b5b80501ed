"""The same words in Python as on the command line."""

from pathlib import Path

import pytest
import timm
import torch

import simmim
from tasks.support import complete, contents, folder_of_pictures, losses

pytestmark = pytest.mark.xdist_group("words")

QUICK = {
    "schedule.duration": "4 steps",
    "schedule.warmup": "1 steps",
    "output.log_every": "1 steps",
    "output.progress": False,
}


@pytest.fixture(scope="module")
def run(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return simmim.pretrain(
        "tiny", data=pictures, out=tmp_path_factory.mktemp("words") / "run", seed=2, settings=QUICK
    ).path


def test_python_and_the_command_line_make_the_same_run(run: Path, pictures: Path, tmp_path: Path) -> None:
    words = [f"{name}={str(value).lower() if value is False else value}" for name, value in QUICK.items()]
    complete("pretrain", "tiny", "--data", str(pictures), "--out", str(tmp_path / "run"), "--seed", "2", *words)
    ours, theirs = contents(run), contents(tmp_path / "run")
    assert losses(run) == losses(tmp_path / "run")
    for name in ("recipe.yaml", "encoder.safetensors", "checkpoints/step_00000004.safetensors"):
        assert ours[name] == theirs[name]


def test_another_seed_is_another_run_and_the_same_seed_the_same(run: Path, pictures: Path, tmp_path: Path) -> None:
    again = simmim.pretrain("tiny", data=pictures, out=tmp_path / "again", seed=2, settings=QUICK).path
    other = simmim.pretrain("tiny", data=pictures, out=tmp_path / "other", seed=3, settings=QUICK).path
    assert losses(again) == losses(run)
    assert losses(other)[0] != losses(run)[0]


def test_a_saved_recipe_makes_the_same_run(run: Path, tmp_path: Path) -> None:
    again = simmim.pretrain(run / "recipe.yaml", out=tmp_path / "again").path
    assert (again / "encoder.safetensors").read_bytes() == (run / "encoder.safetensors").read_bytes()


def test_a_loaded_model_takes_images_and_a_mask(run: Path) -> None:
    model = simmim.load(run)
    assert isinstance(model, simmim.SimMIM)
    assert not model.training
    mask = torch.ones(1, 8, 8, dtype=torch.bool)
    answer = model(torch.zeros(1, 3, 64, 64), mask)
    assert isinstance(answer, simmim.MaskedPrediction)
    answer.loss.backward()  # it can go on learning


def test_a_loaded_model_is_the_same_from_the_folder_and_from_its_newest_checkpoint(run: Path) -> None:
    newest = sorted((run / "checkpoints").iterdir())[-1]
    one, other = simmim.load(run).state_dict(), simmim.load(newest).state_dict()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_loaded_encoder_is_an_ordinary_timm_model_whose_own_transform_prepares_images_as_the_run_did(
    run: Path,
) -> None:
    encoder = simmim.load_encoder(run)
    assert isinstance(encoder, timm.models.VisionTransformer)
    said = timm.data.resolve_model_data_config(encoder)
    assert said["input_size"] == (3, 64, 64)
    assert said["mean"] == pytest.approx(encoder.pretrained_cfg["mean"])
    assert encoder(torch.zeros(2, 3, 64, 64)).shape == (2, 96)


def test_what_cannot_be_loaded_says_why(run: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no run"):
        simmim.load(tmp_path / "nothing")
    with pytest.raises(ValueError, match="load_encoder"):
        simmim.load(run / "encoder.safetensors")
    with pytest.raises(ValueError, match="no checkpoint"):
        simmim.load(tmp_path)


def test_settings_of_a_caller_are_left_as_they_are() -> None:
    block = {"image_size": 32}
    config = simmim.resolve("tiny", extra={"data": block, "data.source": "photos"})
    assert (config.data.source, config.data.image_size) == ("photos", (32, 32))
    assert block == {"image_size": 32}


def test_labelled_folders_are_fine_tuned_and_probed(run: Path, tmp_path: Path) -> None:
    for number, name in enumerate(("grey", "colour")):
        folder = folder_of_pictures(tmp_path / "labelled" / name, 20, height=64, width=64)
        if number == 0:
            from PIL import Image

            for path in folder.iterdir():
                Image.open(path).convert("L").convert("RGB").save(path)
    probed = simmim.probe(run, data=tmp_path / "labelled")
    assert probed.training_images + probed.held_out_images == 40
    assert probed.classes == 2
    settings = {**QUICK, "batch": "16 images", "machine.workers": 0}
    out = simmim.finetune(run, data=tmp_path / "labelled", out=tmp_path / "out", settings=settings).path
    assert (out / "classifier.safetensors").exists()
    assert (out / "result.json").exists()
