"""Evaluation alone, beside scikit-learn; and whole fine-tunings with everything the published ones do."""

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from sklearn.metrics import confusion_matrix, log_loss, top_k_accuracy_score
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2.functional import center_crop, resize

import simmim
from simmim.data import open_source
from simmim.encoders import ViTConfig
from simmim.tasks.evaluate import class_numbers
from simmim.tasks.scores import calibration_error, confusion_of, reliability_of
from tasks.digits import labels_of, normalised, pixels_of, plain_timm
from tasks.encoders import encoder_file
from tasks.support import checkpoints, complete, picture, rows, timeless

pytestmark = pytest.mark.xdist_group("evaluate")

VIT: dict[str, Any] = {"name": "vit_tiny_patch16_224", "embed_dim": 24, "depth": 2, "num_heads": 2}
SETTINGS: dict[str, Any] = {
    "data.view.flip": False,
    "batch": "32 images",
    "optimizer.lr": 3e-3,
    "schedule.duration": "12 steps",
    "schedule.warmup": "2 steps",
    "machine.workers": 0,
    "output.log_every": "4 steps",
    "output.save_every": "4 steps",
    "output.evaluate_every": "12 steps",
    "output.progress": False,
}
PUBLISHED: dict[str, Any] = {
    **SETTINGS,
    "augment": {
        "rand_augment": "rand-m9-mstd0.5-inc1",
        "mixup": 0.8,
        "cutmix": 1.0,
        "mixed_together": "8 images",
        "erasing": 0.25,
    },
    "data.evaluation": {"resize": 256 / 224},
    "data.interpolation": "bicubic",
    "ema": 0.8,
    "drop_path": 0.2,
}


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("digits")
    encoder = encoder_file(root / "encoder", ViTConfig(patch_size=2, **VIT), size=(8, 8), channels=1)
    return simmim.finetune(encoder, data="digits", out=root / "run", settings=SETTINGS).path


def test_every_number_is_that_of_scikit_learn(classifier: Path, tmp_path: Path) -> None:
    result = simmim.evaluate(classifier, data="digits", out=tmp_path, batch=100)
    model, words = plain_timm(classifier / "classifier.safetensors")
    source = open_source("digits", split="test", labelled=True)
    with torch.no_grad():
        logits = model(normalised(pixels_of(source), words)).double()
    labels, shares = labels_of(source), logits.softmax(dim=1).numpy()
    named = shares.argmax(axis=1)
    assert result.images == len(labels) == 797
    assert result.top1 == pytest.approx(float((named == labels).mean()))
    assert result.top5 == pytest.approx(float(top_k_accuracy_score(labels, shares, k=5)))
    assert result.loss == pytest.approx(float(log_loss(labels, shares)), rel=1e-5)
    confusion = confusion_matrix(labels, named, labels=range(10))
    assert np.array_equal(confusion_of(labels, named, classes=10), confusion)
    of_classes = {score.name: (score.images, score.accuracy) for score in result.classes}
    assert of_classes == {
        str(n): (confusion[n].sum(), pytest.approx(confusion[n, n] / confusion[n].sum())) for n in range(10)
    }
    assert len({accuracy for _, accuracy in of_classes.values()}) > 1
    assert result.mean_class_accuracy == pytest.approx(np.mean([accuracy for _, accuracy in of_classes.values()]))
    written = json.loads((tmp_path / "evaluation.json").read_text())
    assert written["top1"] == result.top1
    assert (tmp_path / "confusion.png").stat().st_size > 1000
    with (tmp_path / "predictions.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [line["file"] for line in lines] == [source.name(i) for i in range(797)]
    assert [int(line["named"]) for line in lines] == named.tolist()


def test_two_processes_judge_every_image_once(classifier: Path, tmp_path: Path) -> None:
    """797 images: were the last batch padded, there would be 798."""
    simmim.evaluate(classifier, data="digits", out=tmp_path / "one")
    words = ("evaluate", str(classifier), "--data", "digits", "--json")
    said = complete(*words, "--out", str(tmp_path / "two"), processes=2)
    assert json.loads(said.stdout)["images"] == 797
    one, two = (json.loads((tmp_path / name / "evaluation.json").read_text()) for name in ("one", "two"))
    assert one["classes"] == two["classes"]
    assert two["loss"] == pytest.approx(one["loss"], rel=1e-6)
    for name in ("predictions.csv", "confusion.png"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_weights_of_another_program_are_judged_as_the_published_ones(classifier: Path, tmp_path: Path) -> None:
    """No recipe says how to look: the shorter side at 256/224 of the size, bicubic, and the middle of that."""
    simmim.export_weights(classifier, to="timm", out=tmp_path / "timm")
    simmim.import_weights(tmp_path / "timm", out=tmp_path / "back")
    result = simmim.evaluate(tmp_path / "back", data="digits")
    model, words = plain_timm(classifier / "classifier.safetensors")
    source = open_source("digits", split="test", labelled=True)
    larger = resize(torch.from_numpy(pixels_of(source)), [9, 9], InterpolationMode.BICUBIC, antialias=True)
    with torch.no_grad():
        named = model(normalised(center_crop(larger, [8, 8]).numpy(), words)).argmax(dim=1).numpy()
    assert result.images == 797
    assert result.top1 == pytest.approx(float((named == labels_of(source)).mean()), abs=3 / 797)
    assert [score.name for score in result.classes] == list("0123456789")


def test_the_calibration_error_is_that_of_its_definition() -> None:
    generator = np.random.default_rng(0)
    confidence = np.concatenate((generator.uniform(0.1, 1, 500), [1.0, 1 / 15, 0.2]))
    right = generator.random(503) < confidence**2
    expected = 0.0
    for number in range(15):
        inside = [i for i in range(503) if number / 15 < confidence[i] <= (number + 1) / 15]
        if inside:
            gap = abs(sum(right[i] for i in inside) - sum(confidence[i] for i in inside))
            expected += gap / 503
    assert calibration_error(reliability_of(confidence, right)) == pytest.approx(expected)
    assert expected > 0.05


def test_classes_are_matched_by_name_or_counted() -> None:
    known = ("n01", "n02", "n03")
    assert class_numbers(("n03", "n01"), known).tolist() == [2, 0]
    assert class_numbers(("0", "1", "2"), known).tolist() == [0, 1, 2]
    assert class_numbers(("2",), ("0", "2", "10")).tolist() == [1], "a name that is known is a name"
    for given in (("n04",), ("3",), ("0", "n01")):
        with pytest.raises(ValueError, match="of the classifier: "):
            class_numbers(given, known)


def test_an_encoder_alone_cannot_be_evaluated(tmp_path: Path) -> None:
    encoder = encoder_file(tmp_path / "encoder", ViTConfig(patch_size=2, **VIT), size=(8, 8), channels=1)
    with pytest.raises(ValueError, match="an encoder without a classifier; first: simmim finetune"):
        simmim.evaluate(encoder, data="digits")


def test_rand_augment_on_grey_images_is_refused_before_the_run_begins(classifier: Path, tmp_path: Path) -> None:
    settings = {**SETTINGS, "augment.rand_augment": "rand-m9-mstd0.5-inc1"}
    with pytest.raises(ValueError, match=r"these have 1 of 8 bit; switch it off with augment\.rand_augment=null"):
        simmim.finetune(classifier, data="digits", out=tmp_path / "run", settings=settings)


# ------------------------------------------------------------------------------------- all that published fine-tuning does


@pytest.fixture(scope="module")
def coloured(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """An encoder for colour, and 80 pictures in two numbered classes."""
    root = tmp_path_factory.mktemp("coloured")
    for number in range(80):
        folder = root / "data" / str(9 + number % 2)
        folder.mkdir(parents=True, exist_ok=True)
        picture(number, 40, 50).save(folder / f"{number}.png")
    return encoder_file(root / "encoder", ViTConfig(patch_size=8, **VIT), size=(32, 32), channels=3), root / "data"


@pytest.fixture(scope="module")
def published(coloured: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    encoder, data = coloured
    return simmim.finetune(encoder, data=data, out=tmp_path_factory.mktemp("run") / "run", settings=PUBLISHED).path


def test_a_run_with_all_augmentation_that_is_taken_up_again_ends_as_one_that_was_not_cut(
    published: Path, coloured: tuple[Path, Path], tmp_path: Path
) -> None:
    """With another number of workers, which changes nothing either."""
    encoder, data = coloured
    cut = tmp_path / "run"
    shutil.copytree(published, cut)
    for path in (*checkpoints(cut)[1:], cut / "classifier.safetensors", cut / "result.json"):
        path.unlink()
    simmim.finetune(encoder, data=data, out=cut, resume=True, settings={**PUBLISHED, "machine.workers": 1})
    assert timeless(rows(cut)) == timeless(rows(published))
    assert (cut / "result.json").read_bytes() == (published / "result.json").read_bytes()
    for mine, theirs in (
        (cut / "classifier.safetensors", published / "classifier.safetensors"),
        (checkpoints(cut)[-1], checkpoints(published)[-1]),
    ):
        found, expected = load_file(mine), load_file(theirs)
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], expected[name]) for name in found)


def test_the_average_is_what_is_saved_and_judged(published: Path, coloured: tuple[Path, Path], tmp_path: Path) -> None:
    newest = load_file(checkpoints(published)[-1])
    saved = load_file(published / "classifier.safetensors")
    name = "blocks.0.mlp.fc1.weight"
    assert torch.equal(saved[name], newest[f"model/average.module.{name}"])
    assert not torch.equal(saved[name], newest[f"model/backbone.{name}"])
    again = simmim.evaluate(published, data=coloured[1], out=tmp_path)
    assert again.images == 80


def test_a_fine_tuned_run_is_the_encoder_of_another(published: Path, tmp_path: Path) -> None:
    """The intermediate supervised stage that the authors advise before a small task."""
    for number in range(40):
        folder = tmp_path / "small" / ("red", "blue", "green")[number % 3]
        folder.mkdir(parents=True, exist_ok=True)
        picture(number, 40, 40).save(folder / f"{number}.png")
    settings = {**SETTINGS, "schedule.duration": "1 steps", "schedule.warmup": "0 steps", "optimizer.lr": 1e-12}
    settings |= {"batch": "16 images", "data.image_size": "64 px"}
    run = simmim.finetune(published, data=tmp_path / "small", out=tmp_path / "run", settings=settings).path
    before, after = (load_file(each / "classifier.safetensors") for each in (published, run))
    assert torch.allclose(before["blocks.1.attn.qkv.weight"], after["blocks.1.attn.qkv.weight"], atol=1e-7)
    assert after["head.weight"].shape[0] == 3
    assert simmim.evaluate(run, data=tmp_path / "small").images == 40
