"""Images of any number of channels, depth and size are trained on and reconstructed; sizes that do not fit are explained."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
import torch
from numpy.typing import NDArray
from PIL import Image

import simmim
from tasks.support import folder_of_pictures, losses, picture

pytestmark = pytest.mark.xdist_group("images")

SETTINGS: dict[str, Any] = {
    "schedule.duration": "24 steps",
    "schedule.warmup": "3 steps",
    "output.log_every": "1 steps",
    "output.progress": False,
    "data.image_size": [96, 160],
    "output.pictures": 2,
}


def _bands(seed: int, channels: int) -> NDArray[np.float64]:
    """(100, 150, channels), 0 to 1; each channel another picture."""
    bands = [np.asarray(picture(seed * 20 + band).convert("L")) for band in range(channels)]
    return np.stack(bands, axis=2) / 255


Writer = Callable[[Path, int], Path]


def _numpy(channels: int) -> Writer:
    def write(folder: Path, seed: int) -> Path:
        path = folder / f"{seed}.npy"
        np.save(path, (_bands(seed, channels) * 255).astype(np.uint8))
        return path

    return write


def _png16(folder: Path, seed: int) -> Path:
    path = folder / f"{seed}.png"
    path.write_bytes(imagecodecs.png_encode((_bands(seed, 3) * 65535).astype(np.uint16)))
    return path


def _tiff16(folder: Path, seed: int) -> Path:
    path = folder / f"{seed}.tif"
    tifffile.imwrite(path, (_bands(seed, 1)[:, :, 0] * 65535).astype(np.uint16))
    return path


def _float_tiff(folder: Path, seed: int) -> Path:
    path = folder / f"{seed}.tiff"
    tifffile.imwrite(path, (_bands(seed, 4) * 1000 - 300).astype(np.float32), photometric="minisblack")
    return path


def _float_numpy(folder: Path, seed: int) -> Path:
    path = folder / f"{seed}.npy"
    np.save(path, _bands(seed, 2).astype(np.float64) * 7 - 2)
    return path


@pytest.mark.parametrize(
    ("write", "channels", "mean_scale"),
    [
        pytest.param(_numpy(1), 1, (1.0, 0.0), id="1 channel"),
        pytest.param(_numpy(4), 4, (1.0, 0.0), id="4 channels"),
        pytest.param(_numpy(13), 13, (1.0, 0.0), id="13 channels"),
        pytest.param(_png16, 3, (1.0, 0.0), id="16-bit PNG"),
        pytest.param(_tiff16, 1, (1.0, 0.0), id="16-bit TIFF"),
        pytest.param(_float_tiff, 4, (1000.0, -300.0), id="float TIFF"),
        pytest.param(_float_numpy, 2, (7.0, -2.0), id="float array"),
    ],
)
def test_images_of_any_kind_train_and_reconstruct(
    write: Writer, channels: int, mean_scale: tuple[float, float], tmp_path: Path
) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    files = [write(folder, seed) for seed in range(18)]
    run = simmim.pretrain("tiny", data=folder, out=tmp_path / "run", settings=SETTINGS).path
    found = losses(run)
    assert np.isfinite(found).all()
    assert np.mean(found[-4:]) < np.mean(found[:4])
    model = simmim.load(run)
    assert model.encoder.in_channels == channels
    config = simmim.load_encoder(run).pretrained_cfg
    scale, shift = mean_scale
    bands = np.concatenate([_bands(seed, channels).reshape(-1, channels) for seed in range(18)]) * scale + shift
    assert config["mean"] == pytest.approx(bands.mean(axis=0).tolist(), abs=0.005 * scale)
    assert config["std"] == pytest.approx(bands.std(axis=0).tolist(), abs=0.005 * scale)

    drawn = simmim.reconstruct(run, files[:2], out=tmp_path / "drawn")
    assert [one.image for one in drawn] == [str(file) for file in files[:2]]
    for one in drawn:
        assert np.isfinite(one.loss)
        with Image.open(one.picture) as shown:
            assert shown.size[0] > 3 * 160
            assert shown.convert("L").getextrema() != (255, 255)


@pytest.fixture(scope="module")
def colour_run(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return simmim.pretrain("tiny", data=pictures, out=tmp_path_factory.mktemp("colour") / "run", settings=SETTINGS).path


def test_a_reconstruction_leaves_what_was_seen_as_it_was(colour_run: Path, pictures: Path) -> None:
    model = simmim.load(colour_run)
    images = torch.randn(1, 3, 96, 160, generator=torch.Generator().manual_seed(1))
    mask = torch.zeros(1, 12, 20, dtype=torch.bool)
    mask[:, 4:8, 6:12] = True
    with torch.no_grad():
        shown, answer = model.reconstruct(images, mask), model(images, mask).prediction
    hidden = torch.zeros(1, 3, 96, 160, dtype=torch.bool)
    hidden[:, :, 32:64, 48:96] = True
    assert torch.equal(shown[~hidden], images[~hidden])
    assert torch.equal(shown[hidden], answer[hidden])


def test_reconstruct_is_the_same_for_the_same_seed_and_another_for_another(
    colour_run: Path, pictures: Path, tmp_path: Path
) -> None:
    images = sorted(pictures.iterdir())[:2]
    first, again, other = (
        simmim.reconstruct(colour_run, images, out=tmp_path / name, seed=seed)
        for name, seed in (("first", 0), ("again", 0), ("other", 1))
    )
    assert [one.loss for one in first] == [one.loss for one in again]
    assert [one.loss for one in first] != [one.loss for one in other]
    assert Path(first[0].picture).read_bytes() == Path(again[0].picture).read_bytes()


def test_reconstruct_takes_a_folder(colour_run: Path, pictures: Path, tmp_path: Path) -> None:
    drawn = simmim.reconstruct(colour_run, [pictures], out=tmp_path)
    assert len(drawn) == len(list(tmp_path.glob("*.png"))) == 40


def test_reconstruct_leaves_out_what_cannot_be_read(colour_run: Path, pictures: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.png"
    bad.write_text("this is no picture")
    good = sorted(pictures.iterdir())[0]
    drawn = simmim.reconstruct(colour_run, [bad, good], out=tmp_path / "out")
    assert [one.image for one in drawn] == [str(good)]


# -------------------------------------------------------------------------------------------------------- what does not fit


def _refusal(data: Path, out: Path, **settings: Any) -> str:
    changed = {name.replace("__", "."): value for name, value in settings.items()}
    with pytest.raises(ValueError, match="nearest") as error:
        simmim.pretrain("tiny", data=data, out=out, settings={"output.progress": False, **changed})
    return str(error.value)


def test_an_image_size_that_does_not_fit_the_mask_patch_says_the_arithmetic(pictures: Path, tmp_path: Path) -> None:
    said = _refusal(pictures, tmp_path / "run", data__image_size=104)  # 13 model patches, 6.5 mask patches
    assert "104" in said
    assert "mask patch 16 px" in said
    assert "96 or 112" in said


def test_a_size_that_is_suggested_fits(pictures: Path, tmp_path: Path) -> None:
    said = _refusal(pictures, tmp_path / "run", data__image_size=100)
    assert "100" in said
    suggested = [int(number) for number in re.findall(r"\d+", said.split("nearest:")[1])]
    assert len(suggested) == 2
    for number, size in enumerate(suggested):
        settings = {**SETTINGS, "data.image_size": size, "schedule.duration": "1 steps", "schedule.warmup": "0 steps"}
        simmim.pretrain("tiny", data=pictures, out=tmp_path / f"run {number}", settings=settings)


def test_a_mask_patch_that_is_no_multiple_of_the_model_patch_says_so(pictures: Path, tmp_path: Path) -> None:
    said = _refusal(pictures, tmp_path / "run", masking__mask_patch=12, data__image_size=96)
    assert "12 px" in said
    assert "model patch 8 px" in said
    assert "8 or 16" in said


def test_a_target_stride_that_does_not_divide_the_image_says_so(pictures: Path, tmp_path: Path) -> None:
    said = _refusal(pictures, tmp_path / "run", target__stride=24, data__image_size=64)
    assert "64" in said
    assert "stride 24 px" in said
    assert "48 or 96" in said


@pytest.mark.parametrize("stride", [2, 4, 16, 32])
def test_a_target_of_any_stride_that_divides_the_image_trains(stride: int, pictures: Path, tmp_path: Path) -> None:
    settings = {**SETTINGS, "target.stride": stride, "schedule.duration": "3 steps", "schedule.warmup": "0 steps"}
    run = simmim.pretrain("tiny", data=pictures, out=tmp_path / "run", settings=settings).path
    assert np.isfinite(losses(run)).all()


def test_fewer_images_than_a_batch_says_which_batch_fits(tmp_path: Path) -> None:
    folder = folder_of_pictures(tmp_path / "images", 7, height=64, width=64)
    with pytest.raises(ValueError, match=r"7 images.*16") as error:
        simmim.pretrain("tiny", data=folder, out=tmp_path / "run", settings={"output.progress": False})
    suggested = re.search(r"batch='(\d+ images)'", str(error.value))
    assert suggested
    settings = {**SETTINGS, "batch": suggested[1], "schedule.duration": "2 steps", "schedule.warmup": "0 steps"}
    assert len(losses(simmim.pretrain("tiny", data=folder, out=tmp_path / "again", settings=settings).path)) == 2


def test_a_command_that_was_refused_can_be_given_again_corrected(pictures: Path, tmp_path: Path) -> None:
    """What was refused before a single step leaves no folder that is then in the way."""
    out = tmp_path / "run"
    _refusal(pictures, out, masking__mask_patch=12, data__image_size=96)
    settings = {**SETTINGS, "schedule.duration": "1 steps", "schedule.warmup": "0 steps"}
    assert len(losses(simmim.pretrain("tiny", data=pictures, out=out, settings=settings).path)) == 1
