"""Is the loss any good? The fixed images of a run, and what filling without learning reaches on them."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans

import simmim
from simmim.data import CentreCrop, Samples, open_source
from simmim.seeds import seed_of
from simmim.tasks.load import load_with_settings
from simmim.tasks.palette import fit_palette

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
