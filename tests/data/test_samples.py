from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from simmim.data import (
    CentreCrop,
    ImageFile,
    Quarantine,
    RandomCrop,
    Sample,
    Samples,
    UnreadableImage,
    collate,
    measure,
    open_source,
)
from simmim.data.channels import check_channels, fit_channels


def samples_of(root: Path, *, labelled: bool = False, **options: Any) -> Samples:
    options = {"view": RandomCrop(), "size": (16, 24), "channels": 3, "seed": 5} | options
    return Samples(open_source(root, labelled=labelled), **options)


def test_a_sample_depends_on_seed_epoch_and_index_alone(folder: Path) -> None:
    samples = samples_of(folder)
    first = samples[0, 3].pixels
    assert tuple(first.shape) == (3, 16, 24)
    assert first.dtype == torch.uint8
    assert samples[0, 3].label == -1
    assert torch.equal(samples_of(folder)[0, 3].pixels, first)
    for other in (samples[1, 3], samples[0, 4], samples_of(folder, seed=6)[0, 3]):
        assert not torch.equal(other.pixels, first)


def test_a_broken_file_is_replaced_by_its_neighbour(folder: Path) -> None:
    source = open_source(folder, labelled=True)
    broken = [source.name(7), source.name(8)]
    for name in broken:
        Path(name).write_bytes(Path(name).read_bytes()[:300])
    sample = samples_of(folder, labelled=True, view=CentreCrop())[0, 7]
    assert sample.index == 7
    assert sample.label == 1  # that of the neighbour, in another class folder than the file asked for
    assert source.labels is not None
    assert source.labels[7] == 0
    assert list(sample.problems) == broken
    assert torch.equal(sample.pixels, samples_of(folder, view=CentreCrop())[0, 9].pixels)


def test_behind_the_last_file_comes_the_first(folder: Path) -> None:
    Path(open_source(folder).name(23)).unlink()
    source = samples_of(folder).source
    samples = samples_of(folder)
    Path(source.name(22)).write_bytes(b"nothing")
    assert samples[0, 22].problems == {
        source.name(22): "is not an image of a known format: JPEG, PNG, WebP, TIFF, BMP, GIF, .npy or DICOM"
    }


def test_when_nothing_is_readable_it_says_so(folder: Path) -> None:
    samples = samples_of(folder)
    for path in folder.rglob("*.jpg"):
        path.write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"24 files in a row cannot be read.*a/09.jpg is not an image"):
        samples[0, 3]


def test_a_wrong_number_of_channels_is_a_bad_file(folder: Path) -> None:
    np.save(folder / "a" / "000.npy", np.zeros((9, 9, 5), np.uint8))
    sample = samples_of(folder)[0, 1]
    assert sample.problems == {str(folder / "a" / "000.npy"): "has 5 channels, this run has 3"}


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_channels_are_fitted(dtype: torch.dtype) -> None:
    values = torch.randint(0, 256, (4, 5, 6), generator=torch.Generator().manual_seed(0)).to(dtype)
    grey = Image.fromarray(values[:3].permute(1, 2, 0).to(torch.uint8).numpy()).convert("L")
    for found in (3, 4):
        luminance = fit_channels(values[:found], channels=1, alpha=found in (2, 4))
        assert luminance.dtype == dtype
        assert np.abs(luminance[0].numpy().astype(float) - np.array(grey)).max() <= 1
    assert torch.equal(fit_channels(values, channels=3, alpha=True), values[:3])
    assert torch.equal(fit_channels(values, channels=4, alpha=True), values)
    assert torch.equal(fit_channels(values[:1], channels=3, alpha=False), values[[0, 0, 0]])
    assert torch.equal(fit_channels(values[:2], channels=3, alpha=True), values[[0, 0, 0]])
    assert torch.equal(fit_channels(values[:2], channels=1, alpha=True), values[:1])


def _header(channels: int, *, alpha: bool = False) -> ImageFile:
    return ImageFile(
        height=2, width=2, channels=channels, read=lambda at_least: np.zeros((2, 2, channels)), alpha=alpha
    )


@pytest.mark.parametrize(
    ("channels", "alpha", "wanted"), [(3, False, 4), (4, False, 3), (2, False, 1), (2, False, 3), (5, False, 1)]
)
def test_channels_that_are_no_transparency_are_never_dropped(channels: int, alpha: bool, wanted: int) -> None:
    with pytest.raises(UnreadableImage, match=f"has {channels} channels, this run has {wanted}"):
        check_channels(_header(channels, alpha=alpha), wanted=wanted)


@pytest.mark.parametrize(("channels", "wanted"), [(4, 3), (4, 4), (4, 1), (2, 1), (2, 3)])
def test_transparency_may_be_dropped_or_kept(channels: int, wanted: int) -> None:
    check_channels(_header(channels, alpha=True), wanted=wanted)


def test_a_batch_is_8_bit_only_if_all_of_it_is() -> None:
    whole = Sample(torch.full((1, 2, 2), 255, dtype=torch.uint8), 4, 1, {"a": "is empty"})
    real = Sample(torch.full((1, 2, 2), 0.5), 5, 2, {"b": "is empty"})
    batch = collate([whole, whole])
    assert batch.images.dtype == torch.uint8
    batch = collate([whole, real])
    assert batch.images.dtype == torch.float32
    assert batch.images.flatten(1).mean(1).tolist() == [1.0, 0.5]
    assert (batch.labels.tolist(), batch.indices.tolist()) == ([1, 2], [4, 5])
    assert batch.labels.dtype == batch.indices.dtype == torch.int64
    assert batch.problems == {"a": "is empty", "b": "is empty"}


def test_the_quarantine_remembers_and_stops(tmp_path: Path) -> None:
    path = tmp_path / "bad_files.txt"
    quarantine = Quarantine(path, total=100, share=0.05)
    assert quarantine.add({"b\udcff.jpg": "is empty", "a.jpg": "is\ndamaged"}) == 2
    assert quarantine.add({"a.jpg": "is empty"}) == 0
    assert path.read_bytes() == b"a.jpg\tis damaged\nb\xff.jpg\tis empty\n"
    again = Quarantine(path, total=100, share=0.05)
    assert again.add({f"{i}.jpg": "is empty" for i in range(3)}) == 3
    with pytest.raises(
        ValueError, match=r"7 of 100 files \(7 %\) cannot be read, more than data.bad_share allows \(5 %\)"
    ):
        again.add({"a.jpg": "is empty", "d.jpg": "is empty", "e.jpg": "is empty"})
    assert len(path.read_bytes().splitlines()) == 7
    assert list(tmp_path.iterdir()) == [path]


def test_statistics_are_those_of_all_pixels(folder: Path) -> None:
    found = measure(open_source(folder), seed=0)
    pixels = [np.array(Image.open(path)).reshape(-1, 3) / 255 for path in folder.rglob("*.jpg")]
    everything = np.concatenate(pixels)
    np.testing.assert_allclose(found.mean, everything.mean(0), rtol=1e-12)
    np.testing.assert_allclose(found.std, everything.std(0), rtol=1e-9)
    assert (found.channels, found.measured_on) == (3, 24)
    assert measure(open_source(folder), seed=0, samples=7).measured_on == 7


def test_statistics_of_large_pictures_are_taken_small(tmp_path: Path, photo: Any) -> None:
    Image.fromarray(photo(900, 1600)).save(tmp_path / "x.jpg", quality=95)
    found = measure(open_source(tmp_path), seed=0)
    pixels = photo(900, 1600).reshape(-1, 3) / 255
    np.testing.assert_allclose(found.mean, pixels.mean(0), atol=0.01)
    np.testing.assert_allclose(found.std, pixels.std(0), atol=0.01)


def test_statistics_find_the_channels(tmp_path: Path) -> None:
    deep = np.random.default_rng(0).integers(0, 65536, (20, 30, 13), dtype=np.uint16)
    deep[..., 4] = 300
    np.save(tmp_path / "a.npy", deep)
    found = measure(open_source(tmp_path), seed=0)
    np.testing.assert_allclose(found.mean, deep.reshape(-1, 13).mean(0) / 65535, rtol=1e-5)
    assert found.std[4] == 1.0
    Image.new("LA", (4, 4), (51, 0)).save(tmp_path / "b.png")
    with pytest.raises(ValueError, match=r"(?s)  1 channels: \S*b.png\n  13 channels: \S*a.npy"):
        measure(open_source(tmp_path), seed=0)
    (tmp_path / "a.npy").unlink()
    assert measure(open_source(tmp_path), seed=0).mean == (0.2,)
    Image.new("RGBA", (4, 4), (255, 0, 51, 9)).save(tmp_path / "c.png")
    (tmp_path / "d.png").write_text("text")
    found = measure(open_source(tmp_path), seed=0)
    assert (found.channels, found.measured_on) == (3, 2)
    np.testing.assert_allclose(found.mean, [0.6, 0.1, 0.2], rtol=1e-12)
    for name in "bc":
        (tmp_path / f"{name}.png").unlink()
    with pytest.raises(ValueError, match=r"none of 1 images could be measured; .*d.png is not an image"):
        measure(open_source(tmp_path), seed=0)


def test_a_nasty_folder_is_lived_through(folder: Path, photo: Any) -> None:
    colour = Image.fromarray(photo(30, 40))
    colour.save(folder / "png.jpg", "PNG")
    colour.convert("CMYK").save(folder / "cmyk.jpg")
    colour.convert("P").save(folder / "palette.png", transparency=3)
    colour.save(folder / "moving.webp", save_all=True, append_images=[colour.rotate(90)])
    colour.save(folder / "moving.gif", save_all=True, append_images=[colour.rotate(90)])
    Image.new("1", (1, 1)).save(folder / "dot.png")
    Image.new("L", (20_000, 40), 7).save(folder / "long.png")
    np.save(folder / "grey.npy", photo(30, 40)[..., 0])
    np.save(folder / "nan.npy", np.full((9, 9, 3), np.nan))
    np.save(folder / "pickled.npy", np.array([{}]), allow_pickle=True)
    (folder / "text.png").write_text("text")
    (folder / "broken.jpg").symlink_to("nowhere")
    (folder / "empty.jpg").touch()
    (folder / "cut.jpg").write_bytes((folder / "a" / "00.jpg").read_bytes()[:500])
    samples = samples_of(folder)
    batch = collate([samples[0, index] for index in range(len(samples))])
    assert tuple(batch.images.shape) == (36, 3, 16, 24)
    assert sorted(Path(path).name for path in batch.problems) == ["cut.jpg", "nan.npy", "pickled.npy", "text.png"]
    assert sorted(Path(path).name for path in samples.source.problems) == ["broken.jpg", "empty.jpg"]
    assert all("\n" not in reason for reason in batch.problems.values())
