"""The command that other programs rely on, and every file it leaves."""

import json
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors import safe_open
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import simmim
from tasks.support import complete, rows

pytestmark = pytest.mark.xdist_group("command")

SETTINGS = (
    "schedule.duration=60 steps",
    "schedule.warmup=5 steps",
    "output.save_every=5 steps",
    "output.log_every=1 steps",
    "machine.workers=2",
    "machine.micro_batch=8 images",
    "batch=16 images",
    "data.image_size=[96, 160]",
    "seed=3",
)


@pytest.fixture(scope="module")
def whole_run(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("command") / "run"
    said = complete("pretrain", "tiny", "--data", str(pictures), "--out", str(out), *SETTINGS).stdout
    assert f"{out / 'encoder.safetensors'}" in said
    return out


def test_every_report_says_step_epoch_loss_learning_rate_and_speed(whole_run: Path) -> None:
    reports = rows(whole_run)
    assert [row["step"] for row in reports] == list(range(1, 61))
    assert [row["epoch"] for row in reports] == [step / 2 for step in range(1, 61)]  # 40 images, 16 a step
    for row in reports:
        assert np.isfinite([row["loss"], row["lr"], row["images_per_second"]]).all()
        assert row["images_per_second"] > 0
        assert row["skipped_steps"] == 0


def test_the_loss_falls(whole_run: Path) -> None:
    reports = [row["loss"] for row in rows(whole_run)]
    assert np.mean(reports[-10:]) < 0.95 * np.mean(reports[:5])


def test_the_learning_rate_rises_in_a_line_and_falls_in_a_cosine(whole_run: Path) -> None:
    start, peak, floor = 1e-6, 1e-3, 1e-5  # tiny, whose rates are given for its own batch of 16
    rising = [start + (peak - start) * step / 5 for step in range(5)]
    falling = [floor + (peak - floor) * (1 + np.cos(np.pi * step / 55)) / 2 for step in range(55)]
    assert [row["lr"] for row in rows(whole_run)] == pytest.approx(rising + falling, rel=1e-12)


def test_the_saved_recipe_is_the_run_again(whole_run: Path, pictures: Path) -> None:
    saved = simmim.resolve(whole_run / "recipe.yaml")
    asked = simmim.resolve("tiny", SETTINGS, extra={"data.source": str(pictures)})
    assert saved == asked
    assert saved.data.image_size == (96, 160)
    assert (saved.seed, saved.machine.micro_batch, str(saved.schedule.duration)) == (3, 8, "60 steps")


def test_a_list_that_the_shell_took_apart_is_the_same_list(pictures: Path) -> None:
    split = [part for word in SETTINGS for part in (word.split(" ") if "[" in word else [word])]
    assert len(split) == len(SETTINGS) + 1
    assert simmim.resolve("tiny", split) == simmim.resolve("tiny", SETTINGS)


def test_plain_timm_opens_the_encoder_and_gives_the_same_features(whole_run: Path) -> None:
    with safe_open(whole_run / "encoder.safetensors", framework="pt") as file:
        words = file.metadata()
        weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no dictionary
    model = timm.create_model(words["architecture"], pretrained=False, **json.loads(words["arguments"]))
    model.load_state_dict(weights, strict=True)
    images = torch.randn(2, 3, 96, 160, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        ours = simmim.load_encoder(whole_run).forward_features(images)
        inside = simmim.load(whole_run).encoder.backbone.forward_features(images)
        assert torch.equal(model.eval().forward_features(images), ours)
        assert torch.equal(inside, ours)


def test_the_encoder_says_what_it_is(whole_run: Path, pictures: Path) -> None:
    with safe_open(whole_run / "encoder.safetensors", framework="pt") as file:
        words = file.metadata()
    assert json.loads(words["image_size"]) == [96, 160]
    assert words["version"] == simmim.__version__
    assert words["recipe"] == (whole_run / "recipe.yaml").read_text(encoding="utf-8")
    pixels = np.concatenate([np.asarray(Image.open(path)).reshape(-1, 3) for path in sorted(pictures.iterdir())]) / 255
    assert json.loads(words["mean"]) == pytest.approx(pixels.mean(axis=0).tolist(), rel=1e-9)
    assert json.loads(words["std"]) == pytest.approx(pixels.std(axis=0).tolist(), rel=1e-9)


def test_the_newest_three_checkpoints_are_kept_and_nothing_half_written(whole_run: Path) -> None:
    names = sorted(path.name for path in (whole_run / "checkpoints").iterdir())
    assert names == [f"step_000000{step}.safetensors" for step in (50, 55, 60)]
    assert not list(whole_run.rglob("*.part"))


def test_pictures_show_four_images_three_ways(whole_run: Path) -> None:
    assert [path.name for path in sorted((whole_run / "pictures").iterdir())] == [
        "step_00000030.png",
        "step_00000060.png",
    ]
    for path in (whole_run / "pictures").iterdir():
        with Image.open(path) as drawn:
            drawn.load()
            height, width = 192, 320  # shown twice as large, because 96 px is small
            assert drawn.size[0] in range(3 * width, 3 * width + 100)
            assert drawn.size[1] in range(4 * height, 4 * height + 140)
            assert drawn.convert("L").getextrema() != (255, 255)


def test_tensorboard_reads_the_same_losses(whole_run: Path) -> None:
    events = EventAccumulator(str(whole_run / "events"))
    events.Reload()
    read = events.Scalars("loss")
    assert [event.step for event in read] == list(range(1, 61))
    assert [event.value for event in read] == pytest.approx([row["loss"] for row in rows(whole_run)], rel=1e-6)


def test_the_diary_says_when_it_began_and_that_it_is_done(whole_run: Path) -> None:
    text = (whole_run / "log.txt").read_text(encoding="utf-8")
    assert "begins" in text
    assert "done: 60 steps" in text


def test_other_programs_of_the_machine_may_read_the_encoder(whole_run: Path) -> None:
    kinds = {path.stat().st_mode & 0o777 for path in (whole_run / "recipe.yaml", whole_run / "encoder.safetensors")}
    assert len(kinds) == 1, "the weights can be read by fewer people than the recipe beside them"


def test_the_model_of_the_run_answers_with_loss_and_prediction(whole_run: Path) -> None:
    images = torch.randn(2, 3, 96, 160, generator=torch.Generator().manual_seed(0))
    mask = torch.zeros(2, 12, 20, dtype=torch.bool)
    mask[:, 2:6, 4:12] = True
    with torch.no_grad():
        answer = simmim.load(whole_run)(images, mask)
    hidden = mask.repeat_interleave(8, 1).repeat_interleave(8, 2)[:, None].expand(2, 3, 96, 160)
    assert answer.prediction.shape == images.shape
    assert float(answer.loss) == pytest.approx(float((answer.prediction - images).abs()[hidden].mean()), rel=1e-5)
