"""Is the loss any good? The fixed images of a run, and what filling without learning reaches on them."""

import hashlib
import json
import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.cluster import KMeans

import simmim
from simmim.data import CentreCrop, Samples, open_source
from simmim.seeds import seed_of
from simmim.tasks.load import load_with_settings
from simmim.tasks.palette import fit_palette, read_invalid
from simmim.tasks.training import build_schedule

SETTINGS = {
    "schedule.duration": "6 steps",
    "schedule.warmup": "1 steps",
    "output.pictures": 5,
    "data.held_out": "20 images",
    "data.split": "train",
    "data.image_size": "16 px",
    "encoder.patch_size": "4 px",
    "masking.mask_patch": "4 px",
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return simmim.pretrain("tiny", data="digits", out=tmp_path_factory.mktemp("run") / "run", settings=SETTINGS).path


def _last_row(run: Path) -> dict[str, float]:
    return json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])


def test_images_that_are_held_out_are_not_trained_on(run: Path) -> None:
    derived = json.loads((run / "derived.json").read_text())
    assert derived["images"] == 980


def test_the_loss_of_the_mean_colour_is_that_of_a_loop_over_the_hidden_pixels(run: Path) -> None:
    loaded = load_with_settings(run)
    from simmim.data import hold_out

    held_out = hold_out(open_source("digits", split="train"), 20 / 1000, seed=0)[1]
    samples = Samples(held_out, view=CentreCrop(), size=(16, 16), channels=1, seed=0)
    images = [samples[0, number * 20 // 5].pixels.double() / 255 for number in range(5)]
    generator = torch.Generator().manual_seed(seed_of(0, "masks", -1))
    masks = loaded.config.masking(5, image_size=(16, 16), patch_size=4, generator=generator)
    errors: list[float] = []
    for image, mask in zip(images, masks, strict=True):
        hidden = np.kron(mask.numpy(), np.ones((4, 4))).astype(bool)
        pixels = (image[0].numpy() - loaded.statistics.mean[0]) / loaded.statistics.std[0]
        errors += list(np.abs(pixels[hidden] - pixels[~hidden].mean()))
    assert _last_row(run)["fixed_loss_mean_colour"] == pytest.approx(float(np.mean(errors)), rel=1e-4)


def test_the_fixed_loss_is_that_of_the_saved_model(run: Path) -> None:
    row = _last_row(run)
    assert row["fixed_loss"] > 0
    assert {"fixed_loss_nearest_pixel", "fixed_loss_smooth", "avgdist"} <= row.keys()


def test_a_target_of_classes_has_no_fillings_and_never_pretends(tmp_path: Path) -> None:
    settings = {**SETTINGS, "target": {"kind": "bins"}, "data.held_out": "0 images"}
    run = simmim.pretrain("tiny", data="digits", out=tmp_path / "run", settings=settings).path
    row = _last_row(run)
    assert "fixed_loss" in row
    assert not [name for name in row if name.startswith("fixed_loss_")]


def test_a_palette_fits_about_as_well_as_full_k_means(tmp_path: Path) -> None:
    palette = fit_palette("digits", out=tmp_path / "palette.npy", colours=6)
    centres = np.load(palette.file)
    assert centres.shape == (6, 1)
    pixels = (
        np.concatenate([open_source("digits").open(i).pixels().flatten().numpy() for i in range(300)])[:, None] / 255
    )
    full = KMeans(6, n_init=3, random_state=0).fit(pixels).cluster_centers_
    nearest = [np.abs(pixels - each.T).min(axis=1) for each in (centres, full)]
    assert np.sqrt((nearest[0] ** 2).mean()) < 1.3 * np.sqrt((nearest[1] ** 2).mean())
    with pytest.raises(ValueError, match="fewer than --colours"):
        fit_palette("digits", out=tmp_path / "palette.npy", colours=100_000)


def test_a_run_on_a_palette_of_ones_own_trains_and_draws(tmp_path: Path) -> None:
    palette = fit_palette("digits", out=tmp_path / "palette.npy", colours=8)
    settings = {**SETTINGS, "target": {"kind": "clusters", "centres": palette.file, "stride": "2 px"}}
    run = simmim.pretrain("tiny", data="digits", out=tmp_path / "run", settings=settings).path
    losses = [json.loads(line)["loss"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert losses[-1] < losses[0] + 0.1
    assert list((run / "pictures").glob("*.png"))


def test_empty_pixels_give_a_palette_no_colour(tmp_path: Path) -> None:
    """Half of each picture is a black border: with it declared empty, no colour is near black."""
    (tmp_path / "images").mkdir()
    for number in range(6):
        bright = np.random.default_rng(number).integers(120, 256, (64, 64, 3), dtype=np.uint8)
        bright[:32] = 0
        Image.fromarray(bright).save(tmp_path / "images" / f"{number}.png")
    darkest: dict[str, float] = {}
    for name, invalid in (("plain", None), ("valid", "black")):
        palette = fit_palette(
            tmp_path / "images", out=tmp_path / f"{name}.npy", colours=8, invalid=read_invalid(invalid)
        )
        darkest[name] = float(np.load(palette.file).min())
    assert darkest["plain"] < 0.01
    assert darkest["valid"] > 110 / 255
    assert read_invalid("-9999") == -9999
    with pytest.raises(ValueError, match=r"--invalid blakc: .*did you mean 'black'"):
        read_invalid("blakc")


def test_a_run_goes_on_with_the_palette_it_began_with_only(tmp_path: Path) -> None:
    palette = tmp_path / "palette.npy"
    fit_palette("digits", out=palette, colours=8)
    target = {"kind": "clusters", "centres": str(palette), "stride": "2 px"}
    settings = {**SETTINGS, "target": target, "output.save_every": "5 steps"}
    run = simmim.pretrain("tiny", data="digits", out=tmp_path / "run", settings=settings)
    noted = json.loads(run.derived.read_text())["digests"]
    assert noted == {"target.centres": hashlib.sha256(palette.read_bytes()).hexdigest()}
    fit_palette("digits", out=palette, colours=8, seed=1)
    with pytest.raises(ValueError, match=r"the file that target\.centres names is another one"):
        simmim.pretrain("tiny", data="digits", out=tmp_path / "run", settings=settings, resume=True)
    fit_palette("digits", out=palette, colours=8)
    simmim.pretrain("tiny", data="digits", out=tmp_path / "run", settings=settings, resume=True)


def test_a_warm_up_that_is_longer_than_the_run_is_said(caplog: pytest.LogCaptureFixture) -> None:
    for warmup, said in (("20 steps", True), ("5 steps", False)):
        caplog.clear()
        config = simmim.resolve("tiny", ["schedule.duration=5 steps", f"schedule.warmup={warmup}"])
        with caplog.at_level(logging.WARNING, logger="simmim"):
            build_schedule(config, images=100)
        assert ("never reaches its peak" in caplog.text) is said
