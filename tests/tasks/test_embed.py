"""Features in a file are those of plain timm, in the order of the source, each beside its name."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pyarrow import parquet

import simmim
from simmim.data import open_source
from tasks.digits import PRETRAINING, labels_of, normalised, pixels_of, plain_timm
from tasks.support import folder_of_pictures

pytestmark = pytest.mark.xdist_group("finetune")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    settings = {**PRETRAINING, "schedule.duration": "2 steps", "output.evaluate_every": "2 steps"}
    return simmim.pretrain("tiny", data="digits", out=tmp_path_factory.mktemp("made") / "run", settings=settings).path


def test_the_digits_are_embedded_as_load_encoder_does(run: Path, tmp_path: Path) -> None:
    told = simmim.embed(run, data="digits", out=tmp_path / "digits.npz")
    assert (told.images, told.width, told.layer, told.pooling, told.labelled) == (1797, 48, 3, "mean", 1797)
    source = open_source("digits")
    words = plain_timm(run / "encoder.safetensors")[1]
    with torch.no_grad():
        tokens = simmim.load_encoder(run).forward_features(normalised(pixels_of(source), words))
    with np.load(tmp_path / "digits.npz") as file:
        assert file["features"].dtype == np.float32
        np.testing.assert_allclose(file["features"], tokens[:, 1:].mean(dim=1).numpy(), atol=1e-5)
        assert file["files"].tolist() == [f"digits/{number:04d}" for number in range(1797)]
        assert file["labels"].tolist() == [str(label) for label in labels_of(source)]
        assert (int(file["layer"]), str(file["pooling"])) == (3, "mean")


def _folder(place: Path) -> Path:
    folder_of_pictures(place / "cat", 3, height=20, width=20)
    folder_of_pictures(place / "dog", 2, height=20, width=20)
    for path in place.rglob("*.png"):
        Image.open(path).convert("L").save(path)
    Image.open(place / "dog" / "0001.png").save(place / "stray.png")
    whole = (place / "cat" / "0001.png").read_bytes()
    (place / "cat" / "0001.png").write_bytes(whole[: len(whole) // 2])
    return place


def test_a_folder_keeps_its_order_its_labels_and_its_strays_and_loses_its_broken_file(
    run: Path, tmp_path: Path
) -> None:
    data = _folder(tmp_path / "data")
    told = simmim.embed(run, data=data, out=tmp_path / "a.parquet", layer=2, pooling="cls")
    table = parquet.read_table(tmp_path / "a.parquet")
    source = open_source(data)
    expected = [source.name(index) for index in range(len(source)) if not source.name(index).endswith("cat/0001.png")]
    assert table["file"].to_pylist() == expected
    assert len(expected) == told.images == 5
    assert dict(zip(expected, table["label"].to_pylist(), strict=True)) == {
        str(data / name): label
        for name, label in (
            ("cat/0000.png", "cat"),
            ("cat/0002.png", "cat"),
            ("dog/0000.png", "dog"),
            ("dog/0001.png", "dog"),
            ("stray.png", None),
        )
    }
    assert list(told.left_out) == [str(data / "cat" / "0001.png")]
    assert table.schema.metadata == {b"layer": b"2", b"pooling": b"cls"}
    features = dict(zip(expected, table["features"].to_pylist(), strict=True))
    assert features[str(data / "stray.png")] == features[str(data / "dog" / "0001.png")]  # the same picture
    assert features[str(data / "stray.png")] != features[str(data / "dog" / "0000.png")]


@pytest.mark.parametrize(("name", "message"), [("a.csv", r"allowed are \.parquet and \.npz"), ("a", "allowed are")])
def test_a_file_of_another_kind_is_refused(run: Path, tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        simmim.embed(run, data="digits", out=tmp_path / name)


def test_without_pyarrow_the_extra_is_named(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [])  # nothing can be found any more
    monkeypatch.delitem(sys.modules, "pyarrow")
    monkeypatch.setattr(sys, "path_importer_cache", {})
    with pytest.raises(ValueError, match=r"simmim\[datasets\]"):
        simmim.embed(run, data="digits", out=tmp_path / "a.parquet")


def test_images_without_labels_are_welcome(run: Path, tmp_path: Path) -> None:
    data = folder_of_pictures(tmp_path / "plain", 2, height=20, width=20)
    for path in data.iterdir():
        Image.open(path).convert("L").save(path)
    assert simmim.embed(run, data=data, out=tmp_path / "a.npz").labelled == 0
    with np.load(tmp_path / "a.npz") as file:
        assert file["labels"].tolist() == ["", ""]
