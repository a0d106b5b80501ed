"""Fine-tuning on real digits: the numbers a run claims are those its weights give, in plain timm."""

import json
import os
import signal
from pathlib import Path
from typing import Any, cast

import pytest
import timm
import torch
from safetensors.torch import load_file
from timm.models import group_parameters  # the function behind timm's own layer-wise decay
from torchvision.transforms.v2.functional import resize

import simmim
from simmim.data import open_source
from simmim.engine.distributed import start_processes
from simmim.engine.folder import RunFolder
from simmim.tasks import finetune as task
from simmim.tasks.training import Session
from tasks.digits import PRETRAINING, labels_of, normalised, pixels_of, plain_timm
from tasks.support import Process, checkpoints, complete, contents, lines_in, rows, timeless

pytestmark = pytest.mark.xdist_group("finetune")

SETTINGS: dict[str, Any] = {
    "data.labels": "10 per class",
    "data.view.flip": False,
    "batch": "50 images",
    "optimizer.lr": 3e-3,
    "schedule.duration": "60 steps",
    "schedule.warmup": "5 steps",
    "machine.workers": 0,
    "output.log_every": "5 steps",
    "output.save_every": "7 steps",
    "output.evaluate_every": "30 steps",
    "output.progress": False,
}


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return simmim.pretrain(
        "tiny", data="digits", out=tmp_path_factory.mktemp("digits") / "run", settings=PRETRAINING
    ).path


@pytest.fixture(scope="module")
def classifiers(encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A run on the pre-trained encoder, and one from scratch."""
    root = tmp_path_factory.mktemp("classifiers")
    return {
        weights: simmim.finetune(
            encoder, data="digits", out=root / weights, settings={**SETTINGS, "weights": weights}
        ).path
        for weights in ("pretrained", "random")
    }


@pytest.mark.parametrize("weights", ["pretrained", "random"])
def test_the_accuracy_a_run_claims_is_that_of_its_weights(weights: str, classifiers: dict[str, Path]) -> None:
    run = classifiers[weights]
    model, words = plain_timm(run / "classifier.safetensors")
    held_out = open_source("digits", split="test", labelled=True)
    with torch.no_grad():
        named = model(normalised(pixels_of(held_out), words)).argmax(dim=1).numpy()
    right = float((named == labels_of(held_out)).mean())
    result = json.loads((run / "result.json").read_text())
    assert result["accuracy"] == pytest.approx(right, abs=1e-12)
    assert (result["images"], result["classes"]) == (797, 10)
    assert rows(run)[-1]["accuracy"] == result["accuracy"]
    assert len(set(named.tolist())) > 1, "one answer to all images shows nothing"
    assert json.loads(words["classes"]) == list("0123456789")


def test_only_the_labels_asked_for_are_learned_from(classifiers: dict[str, Path]) -> None:
    derived = json.loads((classifiers["pretrained"] / "derived.json").read_text())
    assert derived["images"] == 100
    assert derived["held_out_images"] == 797


@pytest.mark.parametrize("weights", ["pretrained", "random"])
def test_the_encoder_starts_as_it_was_trained_or_at_random(weights: str, encoder: Path, tmp_path: Path) -> None:
    settings = {**SETTINGS, "weights": weights, "schedule.duration": "1 steps", "schedule.warmup": "0 steps"}
    settings |= {"optimizer.lr": 1e-12, "output.evaluate_every": "1 steps"}
    run = simmim.finetune(encoder, data="digits", out=tmp_path / "run", settings=settings).path
    before, after = load_file(encoder / "encoder.safetensors"), load_file(run / "classifier.safetensors")
    name = "blocks.0.attn.qkv.weight"
    assert torch.allclose(before[name], after[name], atol=1e-7) == (weights == "pretrained")


def test_learning_rates_and_decay_of_the_layers_are_those_of_timms_groups(encoder: Path, tmp_path: Path) -> None:
    extra = {
        "encoder": str(encoder),
        "data.source": "digits",
        "layer_decay": 0.7,
        "optimizer.weight_decay": 0.3,
        **SETTINGS,
    }
    config = cast(task.FinetuneConfig, simmim.resolve("finetune", task="finetune", extra=extra))
    built = task.build(config, Session(start_processes("cpu"), RunFolder(tmp_path), None))
    model = plain_timm(encoder / "encoder.safetensors")[0]
    arguments = json.loads(plain_timm(encoder / "encoder.safetensors")[1]["arguments"]) | {"num_classes": 10}
    model = timm.create_model("vit_base_patch16_224", **{**arguments, "global_pool": "avg"})
    layers = group_parameters(model, model.group_matcher(coarse=False), reverse=True)
    last = max(layers.values())
    found = {
        name.removeprefix("backbone."): (group["lr_scale"], group["weight_decay"])
        for group in built.run.optimizer.param_groups
        for name in group["names"]
    }
    shapes = dict(model.named_parameters())
    assert found.keys() == layers.keys() == shapes.keys()
    for name, (scale, decay) in found.items():
        assert scale == pytest.approx(0.7 ** (last - layers[name])), name
        spared = shapes[name].ndim <= 1 or name in {"cls_token", "pos_embed"}
        assert decay == (0.0 if spared else 0.3), name
    assert found["head.weight"][0] == 1.0
    assert found["patch_embed.proj.weight"][0] == pytest.approx(0.7**4)  # head, three blocks, embedding


def test_another_image_size_is_taken_and_its_accuracy_is_true_as_well(encoder: Path, tmp_path: Path) -> None:
    settings = {**SETTINGS, "data.image_size": 16, "schedule.duration": "20 steps"}
    run = simmim.finetune(encoder, data="digits", out=tmp_path / "run", settings=settings).path
    model, words = plain_timm(run / "classifier.safetensors")
    assert json.loads(words["image_size"]) == [16, 16]
    assert model.pos_embed.shape[1] == 8 * 8 + 1
    held_out = open_source("digits", split="test", labelled=True)
    large = resize(torch.from_numpy(pixels_of(held_out)), [16, 16], antialias=True).numpy()
    with torch.no_grad():
        named = model(normalised(large, words)).argmax(dim=1).numpy()
        again = simmim.load_encoder(run)(normalised(large, words)).argmax(dim=1).numpy()
    right = float((named == labels_of(held_out)).mean())
    assert json.loads((run / "result.json").read_text())["accuracy"] == pytest.approx(right, abs=1e-12)
    assert (again == named).all()


def test_a_finished_run_that_is_resumed_changes_nothing(classifiers: dict[str, Path], encoder: Path) -> None:
    run = classifiers["pretrained"]
    before = contents(run)
    simmim.finetune(encoder, data="digits", out=run, resume=True, settings={**SETTINGS, "weights": "pretrained"})
    assert contents(run) == before


def test_a_run_that_was_stopped_and_resumed_ends_as_one_that_was_not(encoder: Path, tmp_path: Path) -> None:
    def words(out: Path) -> tuple[str, ...]:
        settings = {**SETTINGS, "machine.workers": 1, "output.progress": "false", "drop_path": 0.2}
        settings |= {"machine.micro_batch": "25 images"}
        return (
            "finetune",
            str(encoder),
            "--data",
            "digits",
            "--out",
            str(out),
            *(f"{k}={v}" for k, v in settings.items()),
        )

    whole, cut = tmp_path / "whole", tmp_path / "cut"
    complete(*words(whole))
    process = Process(*words(cut))
    process.until(lambda: lines_in(cut) >= 4)
    os.killpg(process.process.pid, signal.SIGTERM)
    assert process.wait() == 143
    assert "--resume" in process.stderr
    assert not (cut / "result.json").exists()
    complete(*words(cut), "--resume")
    assert timeless(rows(cut)) == timeless(rows(whole))
    for name in ("classifier.safetensors", "result.json"):
        assert (cut / name).read_bytes() == (whole / name).read_bytes()
    assert checkpoints(cut)[-1].read_bytes() == checkpoints(whole)[-1].read_bytes()


def test_an_encoder_that_is_not_there_or_not_finished_is_said_so(encoder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no run"):
        simmim.finetune(tmp_path / "nothing", data="digits", out=tmp_path / "a")
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun" / "recipe.yaml").write_bytes((encoder / "recipe.yaml").read_bytes())
    with pytest.raises(ValueError, match=r"not complete.*--resume"):
        simmim.finetune(tmp_path / "begun", data="digits", out=tmp_path / "b")
