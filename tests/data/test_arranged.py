"""Pages, bands and picked channels, and DICOM."""

import pickle
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

import simmim
from simmim.data import DataConfig, Source, UnreadableImage, measure, open_image, open_source
from simmim.data.arranged import arrange


def _pixels(source: Source, index: int = 0) -> NDArray[Any]:
    return source.open(index).pixels().permute(1, 2, 0).numpy()


def _noise(*shape: int, dtype: str = "uint8", seed: int = 0) -> NDArray[Any]:
    return np.random.default_rng(seed).integers(0, 200, shape).astype(dtype)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("tile", [None, (16, 16)])
def test_pages_are_the_first_each_or_the_channels(tmp_path: Path, dtype: str, tile: tuple[int, int] | None) -> None:
    pages = _noise(4, 20, 24, dtype=dtype)
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        for page in pages:
            file.write(page, tile=tile, metadata=None, photometric="minisblack")
    Image.fromarray(pages[0].astype(np.uint8)).save(tmp_path / "b.png")
    scale = 65535 if dtype == "uint16" else 1
    files = open_source(tmp_path)
    assert arrange(files) is files
    np.testing.assert_allclose(_pixels(files), pages[0][..., None] / scale, rtol=1e-6)
    each = arrange(files, pages="each")
    assert [Path(each.name(index)).name for index in range(len(each))] == [
        *(f"a.tif, page {number}" for number in range(1, 5)),
        "b.png, page 1",
    ]
    for number, page in enumerate(pages):
        np.testing.assert_allclose(_pixels(each, number), page[..., None] / scale, rtol=1e-6)
    stacked: Source = pickle.loads(pickle.dumps(arrange(files, pages="channels")))
    assert stacked.open(0).channels == 4
    np.testing.assert_allclose(_pixels(stacked), pages.transpose(1, 2, 0) / scale, rtol=1e-6)
    assert len({files.fingerprint, each.fingerprint, stacked.fingerprint}) == 3


def test_pages_of_colour_and_of_other_sizes(tmp_path: Path) -> None:
    colour = [Image.fromarray(_noise(10, 12 + number, 3, seed=number)) for number in range(2)]
    colour[0].save(tmp_path / "a.tif", save_all=True, append_images=colour[1:], compression="tiff_lzw")
    each = arrange(open_source(tmp_path), pages="each")
    assert [np.array_equal(_pixels(each, number), np.array(colour[number])) for number in range(2)] == [True, True]
    with pytest.raises(UnreadableImage, match="do not go together: 10 x 12, 10 x 13"):
        arrange(open_source(tmp_path), pages="channels").open(0)


def test_a_file_a_band(tmp_path: Path) -> None:
    bands = {"B02": _noise(20, 24, dtype="uint16"), "B03": _noise(20, 24, dtype="uint16", seed=1)}
    small = _noise(10, 12, dtype="uint16", seed=2)
    for tile in ("x", "y"):
        for name, band in {**bands, "B05": small, "TCI": small}.items():
            tifffile.imwrite(tmp_path / f"{tile}_{name}.tif", band)
    (tmp_path / "y_B03.tif").unlink()
    ends = ("_B05.tif", "_B02.tif", "_B03.tif")
    source = arrange(open_source(tmp_path), bands=ends)
    assert len(source) == 1
    assert source.problems == {str(tmp_path / "y"): "has no file ending in _B03.tif"}
    assert source.listed == 2
    expected = np.dstack([small.repeat(2, 0).repeat(2, 1), bands["B02"], bands["B03"]])
    np.testing.assert_allclose(_pixels(source), expected / 65535, rtol=1e-6)
    with pytest.raises(ValueError, match=r"no image has all its bands; .* has no file ending in _B08.tif"):
        arrange(open_source(tmp_path), bands=("_B02.tif", "_B08.tif"))


def test_channels_are_picked_in_their_order(tmp_path: Path) -> None:
    array = _noise(20, 24, 5)
    np.save(tmp_path / "a.npy", array)
    config = DataConfig(image_size=(16, 16), channels=(3, 0, 3), source=str(tmp_path))
    source = config.arranged(open_source(tmp_path))
    assert np.array_equal(_pixels(source), array[:, :, [3, 0, 3]])
    assert config.channel_count == 3
    assert measure(source, seed=0).channels == 3
    with pytest.raises(UnreadableImage, match=r"has 5 channels, counted from 0, and data.channels asks for number 5"):
        arrange(source.source, channels=(5,)).open(0)  # pyright: ignore
    with pytest.raises(ValueError, match="there must be one a channel"):
        DataConfig(image_size=(16, 16), channels=(3, 0), mean=(0.5,) * 3, std=(0.1,) * 3)


def test_a_pre_training_sees_the_channels_that_were_picked(tmp_path: Path) -> None:
    settings = {
        "data.bands": ["_a.npy", "_b.npy"],
        "data.channels": [2, 0],
        "data.image_size": "16 px",
        "masking.mask_patch": "8 px",
        "batch": "2 images",
        "schedule.duration": "2 steps",
        "schedule.warmup": "1 steps",
        "output.pictures": 1,
        "output.progress": False,
        "machine.device": "cpu",
    }
    (tmp_path / "data").mkdir()
    for number in range(3):
        np.save(tmp_path / "data" / f"{number}_a.npy", _noise(20, 20, 2, seed=number))
        np.save(tmp_path / "data" / f"{number}_b.npy", _noise(20, 20, seed=number + 9))
    run = simmim.pretrain("tiny", data=tmp_path / "data", out=tmp_path / "run", settings=settings)
    encoder = simmim.load_encoder(run.path)
    assert encoder.patch_embed.proj.weight.shape[1] == 2


def test_mixed_numbers_of_channels_are_named_file_by_file(tmp_path: Path) -> None:
    for name, channels in (("a", 4), ("b", 6), ("c", 4), ("d", 6), ("e", 6)):
        np.save(tmp_path / f"{name}.npy", _noise(10, 12, channels))
    with pytest.raises(ValueError, match="differ in their number of channels") as caught:
        measure(open_source(tmp_path), seed=0)
    lines = str(caught.value).splitlines()
    assert lines[1:] == [
        f"  4 channels: {tmp_path}/a.npy, {tmp_path}/c.npy",
        f"  6 channels: {tmp_path}/b.npy, {tmp_path}/d.npy, {tmp_path}/e.npy",
    ]


def _dicom(path: Path, array: NDArray[Any], *, frames: int = 0, **tags: Any) -> None:
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = generate_uid(), generate_uid()
    file = pydicom.Dataset()
    file.file_meta = meta
    shape = array.shape[1:] if frames else array.shape
    file.Rows, file.Columns = shape[:2]
    file.SamplesPerPixel = 3 if len(shape) == 3 else 1
    file.PhotometricInterpretation = "RGB" if len(shape) == 3 else "MONOCHROME2"
    file.PlanarConfiguration = 0
    file.BitsAllocated = file.BitsStored = array.itemsize * 8
    file.PixelRepresentation = int(array.dtype.kind == "i")
    if frames:
        file.NumberOfFrames = frames
    for name, value in tags.items():
        setattr(file, name, value)
    file.HighBit = file.BitsStored - 1
    file.PixelData = array.tobytes()
    file.save_as(path, enforce_file_format=True)


def test_dicom(tmp_path: Path) -> None:
    stored = _noise(20, 24, dtype="int16")
    _dicom(tmp_path / "ct.dcm", stored, RescaleSlope=2, RescaleIntercept=-1024)
    image = open_image(tmp_path / "ct.dcm")
    assert (image.height, image.width, image.channels) == (20, 24, 1)
    np.testing.assert_array_equal(image.pixels()[0].numpy(), stored.astype(np.float32) * 2 - 1024)
    twelve = _noise(20, 24, dtype="uint16")
    _dicom(tmp_path / "dx.dcm", twelve, BitsStored=12, PhotometricInterpretation="MONOCHROME1")
    np.testing.assert_allclose(open_image(tmp_path / "dx.dcm").pixels()[0], (4095 - twelve) / 65535, rtol=1e-6)
    colour = _noise(20, 24, 3)
    _dicom(tmp_path / "us.dcm", colour)
    assert np.array_equal(open_image((tmp_path / "us.dcm").read_bytes()).pixels().permute(1, 2, 0), colour)
    series = _noise(5, 20, 24)
    (tmp_path / "xa").mkdir()
    _dicom(tmp_path / "xa" / "a.dcm", series, frames=5)
    files = open_source(tmp_path / "xa")
    assert np.array_equal(_pixels(files)[..., 0], series[0])
    assert np.array_equal(_pixels(arrange(files, pages="each"), 3)[..., 0], series[3])
    assert np.array_equal(_pixels(arrange(files, pages="channels")), series.transpose(1, 2, 0))


def test_damaged_dicom_and_a_missing_package_say_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _dicom(tmp_path / "a.dcm", _noise(20, 24))
    data = (tmp_path / "a.dcm").read_bytes()
    with pytest.raises(UnreadableImage, match="damaged"):
        open_image(data[:-100]).pixels()
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(UnreadableImage, match=r'pip install "simmim\[dicom\]"'):
        open_image(data)


def test_a_tile_of_a_large_file_costs_no_second_copy(tmp_path: Path) -> None:
    """Opening reads the header alone: a tiled TIFF of 32 MiB, packed to little, is not unpacked."""
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((4096, 4096), np.uint16), tile=(256, 256), compression="zlib")
    tracemalloc.start()
    image = open_image(tmp_path / "a.tif")
    assert tracemalloc.get_traced_memory()[1] < 4 * 2**20
    tracemalloc.stop()
    assert (image.height, image.width) == (4096, 4096)
