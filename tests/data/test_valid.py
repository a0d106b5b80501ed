"""What is empty in an image is neither hidden nor scored nor measured."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

import simmim
from simmim.data import (
    Appearance,
    Box,
    CentreCrop,
    Samples,
    Statistics,
    UnreadableImage,
    collate,
    measure,
    open_image,
    open_source,
)
from simmim.data.array import array_image
from simmim.data.transforms import render, render_valid
from simmim.data.valid import find_valid
from simmim.encoders import ViTConfig
from simmim.heads import LinearHeadConfig
from simmim.masking import average_distance
from simmim.model import SimMIM
from simmim.targets import PixelTarget
from simmim.tasks.fillings import FILLINGS, fill
from simmim.tasks.pictures import hide_valid


def test_each_mark_finds_its_pixels(tmp_path: Path) -> None:
    grey = np.full((6, 7, 3), 100, dtype=np.uint8)
    grey[:2], grey[:, :1], grey[4, 4] = 3, 0, 0
    expected = np.ones((6, 7), dtype=bool)
    expected[:2], expected[:, :1] = False, False  # the dark pixel in the middle is part of the picture
    assert np.array_equal(find_valid(grey, invalid="black", alpha=False), expected)
    expected[:] = True
    expected[:, 0], expected[4, 4] = False, False
    assert np.array_equal(find_valid(grey, invalid=0.0, alpha=False), expected)
    assert find_valid(grey, invalid=-9999.0, alpha=False).all()
    see_through = np.dstack([grey, np.full((6, 7), 255, dtype=np.uint8)])
    see_through[5, 1:3, 3] = (0, 1)
    assert np.argwhere(~find_valid(see_through, invalid="alpha", alpha=True)).tolist() == [[5, 1]]
    assert find_valid(grey, invalid="alpha", alpha=False).all()
    values = np.ones((6, 7, 2), dtype=np.float32)
    values[3, 3, 1] = np.nan
    np.save(tmp_path / "nan.npy", values)
    with pytest.raises(UnreadableImage, match="not finite"):
        open_image(tmp_path / "nan.npy").pixels()
    samples = Samples(
        open_source(tmp_path), view=CentreCrop(), size=(6, 7), channels=2, seed=0, appearance=Appearance(invalid="nan")
    )
    batch = collate([samples[(0, 0)]])
    assert batch.valid is not None
    assert np.argwhere(~batch.valid[0].numpy()).tolist() == [[3, 3]]
    assert batch.images.isfinite().all()
    values[3, 3, 1] = np.inf
    np.save(tmp_path / "nan.npy", values)
    with pytest.raises(ValueError, match="not finite"):
        samples[(0, 0)]


def test_without_empty_pixels_nothing_changes_by_a_bit(photo: Any) -> None:
    image = array_image(photo(50, 70))
    box = Box(3, 5, 40, 60, flip=True)
    pixels, valid = render_valid(image, box=box, size=(16, 24), invalid="black")
    assert valid.all()
    assert pixels.equal(render(image, box=box, size=(16, 24)))


def test_what_is_empty_does_not_bleed_and_is_turned_with_the_picture() -> None:
    """A constant picture stays constant beside its border, whatever the border holds; the map is flipped too."""
    array = np.full((64, 64, 1), 200, dtype=np.uint8)
    array[:, :21] = 7
    pixels, valid = render_valid(array_image(array), box=Box(0, 0, 64, 64, flip=True), size=(16, 16), invalid=7.0)
    assert pixels[0][valid].unique().tolist() == [200]
    assert pixels[0][~valid].unique().tolist() == [0]
    assert valid[:, :10].all()  # mirrored
    assert not valid[:, 12:].any()


def test_statistics_are_those_of_the_valid_part(tmp_path: Path, photo: Any) -> None:
    inner = photo(40, 60) // 2 + 60
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    Image.fromarray(inner).save(tmp_path / "a" / "x.png")
    Image.fromarray(np.pad(inner, ((10, 10), (30, 0), (0, 0)))).save(tmp_path / "b" / "x.png")
    plain = measure(open_source(tmp_path / "a"), seed=0)
    bordered = measure(open_source(tmp_path / "b"), seed=0, invalid="black")
    assert bordered.mean == pytest.approx(plain.mean, rel=1e-9)
    assert bordered.std == pytest.approx(plain.std, rel=1e-9)
    assert measure(open_source(tmp_path / "b"), seed=0).mean != pytest.approx(plain.mean, rel=1e-2)


PATCH, GRID = 4, 4
edges = st.tuples(*[st.integers(0, 2)] * 4)


def _padded(tensor: torch.Tensor, border: tuple[int, int, int, int], unit: int, fill: torch.Tensor) -> torch.Tensor:
    """A map within a border, in units of the map, whose content is taken from `fill`."""
    top, bottom, left, right = (side * unit for side in border)
    whole = fill[..., : tensor.shape[-2] + top + bottom, : tensor.shape[-1] + left + right].clone()
    whole[..., top : top + tensor.shape[-2], left : left + tensor.shape[-1]] = tensor
    return whole


@settings(max_examples=25, deadline=None)
@given(border=edges, seed=st.integers(0, 10_000))
def test_a_border_changes_neither_loss_nor_distance_nor_fillings(border: tuple[int, int, int, int], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    side, room = GRID * PATCH, (GRID + 4) * PATCH
    model = _model(room)
    inner = torch.randn(2, 3, side, side, generator=generator)
    guess = torch.randn(2, 3, side, side, generator=generator)
    mask = torch.rand(2, GRID, GRID, generator=generator) < 0.5
    mask[:, 0, 0], mask[:, 0, 1] = True, False
    noise = torch.randn(2, 3, room, room, generator=generator)
    images, guesses = _padded(inner, border, PATCH, noise), _padded(guess, border, PATCH, noise * 50)
    valid = _padded(torch.ones(2, side, side), border, PATCH, torch.zeros(2, room, room)).bool()
    drawn = _padded(mask, border, 1, torch.rand(2, room, room, generator=generator) < 0.5)
    hidden = hide_valid(drawn, valid)
    assert hidden.sum() == mask.sum()
    assert average_distance(hidden, patch_size=PATCH, valid=valid) == pytest.approx(
        average_distance(mask, patch_size=PATCH), rel=1e-6
    )
    assert float(model.compare(guesses, images, hidden, valid)) == pytest.approx(
        float(model.compare(guess, inner, mask)), rel=1e-5
    )
    holes, wide = (each.repeat_interleave(PATCH, 1).repeat_interleave(PATCH, 2) for each in (mask, hidden))
    for name in FILLINGS:
        small, large = fill(inner, holes, FILLINGS[name]), fill(images, wide | ~valid, FILLINGS[name])
        assert float(model.compare(large, images, hidden, valid)) == pytest.approx(
            float(model.compare(small, inner, mask)), rel=1e-5
        )


def _model(side: int, **more: Any) -> SimMIM:
    torch.manual_seed(0)
    encoder = ViTConfig(name="vit_tiny_patch16_224", patch_size=PATCH, embed_dim=12, depth=1, num_heads=3)
    target = PixelTarget(**more).build(mean=(0.0,) * 3, std=(1.0,) * 3)
    return SimMIM(encoder=encoder.build(image_size=(side, side), in_channels=3), head=LinearHeadConfig(), target=target)


def test_the_loss_is_the_mean_over_valid_hidden_pixels_whatever_the_empty_ones_hold() -> None:
    model, generator = _model(16), torch.Generator().manual_seed(1)
    raw = torch.rand(3, 3, 16, 16, generator=generator)
    valid = torch.rand(3, 16, 16, generator=generator) < 0.8
    valid[:, :5] = False
    statistics = Statistics(3, (0.5,) * 3, (0.2,) * 3)
    mask = hide_valid(torch.rand(3, 4, 4, generator=generator) < 0.6, valid)
    assert not mask[:, 0].any()
    outputs = []
    for junk in (0.0, 1e6, float("nan")):
        images = statistics.normalise(torch.where(valid[:, None], raw, junk), valid)
        with torch.no_grad():
            outputs.append(model(images, mask, valid))
    assert len({float(output.loss) for output in outputs}) == 1
    prediction, target = outputs[0].prediction, outputs[0].target
    errors = [
        abs(float(prediction[b, c, y, x] - target[b, c, y, x]))
        for b in range(3)
        for y in range(16)
        for x in range(16)
        for c in range(3)
        if valid[b, y, x] and mask[b, y // 4, x // 4]
    ]
    assert float(outputs[0].loss) == pytest.approx(np.mean(errors), rel=1e-5)


def _bordered(folder: Path) -> Path:
    """12 pictures, each within a black border of another width."""
    folder.mkdir()
    for number in range(12):
        noise: NDArray[np.uint8] = np.random.default_rng(number).integers(40, 256, (24, 24, 3), dtype=np.uint8)
        noise[: 2 * (number % 4)], noise[:, : number % 7] = 0, 0
        Image.fromarray(noise).save(folder / f"{number:02d}.png")
    return folder


SETTINGS = {
    "masking.mask_patch": "4 px",
    "encoder.patch_size": "4 px",
    "encoder.embed_dim": 12,
    "encoder.depth": 1,
    "data.image_size": "16 px",
    "batch": "12 images",
    "schedule.duration": "3 steps",
    "schedule.warmup": "1 steps",
    "output.log_every": "1 steps",
    "output.pictures": 2,
    "output.progress": False,
    "machine.device": "cpu",
}


def test_a_run_does_not_depend_on_how_a_step_is_parted(tmp_path: Path) -> None:
    data = _bordered(tmp_path / "images")
    rows: dict[str, list[dict[str, Any]]] = {}
    for name, invalid, micro in (("whole", "black", 12), ("parted", "black", 5), ("off", None, 12)):
        more = {"data.invalid": invalid, "machine.micro_batch": f"{micro} images"}
        run = simmim.pretrain("tiny", data=data, out=tmp_path / name, settings={**SETTINGS, **more}).path
        rows[name] = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    losses = {name: [row["loss"] for row in of] for name, of in rows.items()}
    assert losses["parted"] == pytest.approx(losses["whole"], rel=2e-5)
    assert losses["off"] != pytest.approx(losses["whole"], rel=1e-2)
    assert all(row["avgdist"] > 0 for row in rows["whole"])
    assert "fixed_loss_smooth" in rows["whole"][-1]


def test_without_empty_pixels_a_run_is_the_same_to_rounding(tmp_path: Path, folder: Path) -> None:
    losses = []
    for name, invalid in (("off", None), ("on", -5.0)):
        more = {"data.invalid": invalid, "batch": "12 images"}
        run = simmim.pretrain("tiny", data=folder, out=tmp_path / name, settings={**SETTINGS, **more}).path
        losses.append([json.loads(line)["loss"] for line in (run / "metrics.jsonl").read_text().splitlines()])
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
