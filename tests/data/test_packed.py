"""Tar, zip, Parquet and Hugging Face data sets: the same images as the folder they were made of."""

import io
import json
import pickle
import shutil
import tarfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

import simmim
from simmim.data import Source, UnreadableImage, archive_index, hold_out, open_source, splits_of
from simmim.data.shards import matching
from simmim.engine.run import Run

CLASSES = ("cat", "dog", "eel")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """18 PNG of 20 x 24 pixels in three class folders, named in the order of their paths."""
    root = tmp_path_factory.mktemp("images")
    for number in range(18):
        path = root / CLASSES[number // 6] / f"{number:02d}.png"
        path.parent.mkdir(exist_ok=True)
        noise = np.random.default_rng(number).integers(0, 256, (20, 24, 3), dtype=np.uint8)
        Image.fromarray(noise).save(path)
    return root


def _files(images: Path) -> list[Path]:
    return sorted(images.rglob("*.png"))


def _listing(images: Path, to: Path) -> Path:
    (to / "list.txt").write_text("".join(f"{path}\t{path.parent.name}\n" for path in _files(images)))
    return to / "list.txt"


def _add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    archive.addfile(member, io.BytesIO(data))


def _tars(images: Path, to: Path) -> Path:
    for shard in range(3):
        with tarfile.open(to / f"train-{shard:03d}.tar", "w") as archive:
            for path in _files(images)[shard * 6 : shard * 6 + 6]:
                _add(archive, f"./{path.stem}.png", path.read_bytes())
                _add(archive, f"./{path.stem}.cls", path.parent.name.encode())
    return to


def _zip(images: Path, to: Path) -> Path:
    with zipfile.ZipFile(to / "images.zip", "w") as archive:
        for number, path in enumerate(_files(images)):
            kind = zipfile.ZIP_DEFLATED if number % 2 else zipfile.ZIP_STORED
            archive.write(path, f"all/{path.relative_to(images)}", compress_type=kind)
        archive.writestr("__MACOSX/all/cat/._00.png", b"x")
    return to / "images.zip"


def _parquet(images: Path, to: Path) -> Path:
    files = _files(images)
    rows = [{"bytes": path.read_bytes(), "path": path.name} for path in files]
    table = pa.table({"image": rows, "label": [path.parent.name for path in files]})
    pq.write_table(table.slice(0, 10), to / "train-0.parquet", row_group_size=4)
    pq.write_table(table.slice(10), to / "train-1.parquet", row_group_size=3)
    return to


def _hugging_face(images: Path, to: Path) -> Path:
    import datasets

    files = _files(images)
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=list(CLASSES))})
    columns = {"image": [str(path) for path in files], "label": [path.parent.name for path in files]}
    datasets.Dataset.from_dict(columns, features=features).save_to_disk(to / "saved")
    return to / "saved"


PACKED: dict[str, Callable[[Path, Path], Path]] = {
    "list": _listing,
    "tar": _tars,
    "zip": _zip,
    "parquet": _parquet,
    "hugging_face": _hugging_face,
}
kinds = pytest.mark.parametrize("kind", list(PACKED))


@kinds
def test_every_kind_has_the_images_and_labels_of_the_folder(images: Path, tmp_path: Path, kind: str) -> None:
    folder, packed = open_source(images, labelled=True), open_source(PACKED[kind](images, tmp_path), labelled=True)
    assert isinstance(packed, Source)
    assert len(packed) == packed.listed == len(folder) == 18
    assert packed.classes == folder.classes == CLASSES
    assert packed.labels is not None
    assert folder.labels is not None
    assert packed.labels.tolist() == folder.labels.tolist()
    again: Source = pickle.loads(pickle.dumps(packed))
    assert again.fingerprint == packed.fingerprint != open_source(PACKED[kind](images, tmp_path)).fingerprint
    for index in (17, 0, 9, 10, 3):  # at random, not in order
        assert again.open(index).pixels().equal(folder.open(index).pixels())
        assert packed.name(index).startswith(str(tmp_path)) or kind == "list"
    assert len(hold_out(packed, 1 / 3, seed=0)[1]) == 6


SETTINGS = {
    "masking.mask_patch": "4 px",
    "encoder.patch_size": "4 px",
    "encoder.embed_dim": 12,
    "encoder.depth": 1,
    "data.image_size": "16 px",
    "batch": "6 images",
    "schedule.duration": "4 steps",
    "schedule.warmup": "1 steps",
    "output.log_every": "1 steps",
    "output.pictures": 1,
    "output.progress": False,
    "machine.device": "cpu",
}


def _losses(data: Path, out: Path, **more: Any) -> list[float]:
    run = simmim.pretrain("tiny", data=data, out=out, seed=3, settings={**SETTINGS, **more}).path
    return [json.loads(line)["loss"] for line in (run / "metrics.jsonl").read_text().splitlines()]


def _losses_when_cut(data: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """As `_losses`, of a run that was cut in its third step, behind the checkpoint of its second, and resumed."""

    class CutError(Exception):
        pass

    take_step = Run.take_step

    def cut(self: Run, *words: Any, **more: Any) -> int:
        if self.step == 2:
            raise CutError
        return take_step(self, *words, **more)

    settings = {**SETTINGS, "output.save_every": "1 steps"}
    with monkeypatch.context() as patch:
        patch.setattr(Run, "take_step", cut)
        with pytest.raises(CutError):
            simmim.pretrain("tiny", data=data, out=out, seed=3, settings=settings)
    assert len((out / "metrics.jsonl").read_text().splitlines()) == 2
    assert not (out / "encoder.safetensors").exists()
    simmim.pretrain("tiny", data=data, out=out, seed=3, settings=settings, resume=True)
    return [json.loads(line)["loss"] for line in (out / "metrics.jsonl").read_text().splitlines()]


def test_a_pre_training_over_every_kind_has_the_same_losses_also_when_it_was_cut(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        expected = _losses(images, tmp_path / "folder")
        assert len(set(expected)) == 4
        assert _losses_when_cut(images, tmp_path / "cut_folder", monkeypatch) == expected
        for kind, pack in PACKED.items():
            (tmp_path / kind).mkdir()
            packed = pack(images, tmp_path / kind)
            assert _losses(packed, tmp_path / f"run_{kind}") == expected, kind
            assert _losses_when_cut(packed, tmp_path / f"cut_{kind}", monkeypatch) == expected, kind
            if kind in ("tar", "parquet"):  # they read through what a worker inherits
                assert _losses(packed, tmp_path / f"workers_{kind}", **{"machine.workers": 1}) == expected, kind
    finally:
        torch.set_num_threads(threads)


def test_the_index_of_a_tar_is_made_once(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    _tars(images, tmp_path)
    past = time.time_ns() - 10_000_000_000
    for shard in tmp_path.glob("*.tar"):
        os.utime(shard, ns=(past, past))
    first = open_source(tmp_path, labelled=True)
    with monkeypatch.context() as patch:
        patch.setattr(archive_index, "_read_shard", lambda *_: pytest.fail("read again"))
        assert open_source(tmp_path, labelled=True).fingerprint == first.fingerprint
    with tarfile.open(tmp_path / "train-001.tar", "a") as archive:
        _add(archive, "new.png", _files(images)[0].read_bytes())
    assert len(open_source(tmp_path)) == 19


def test_patterns_name_their_files(images: Path, tmp_path: Path) -> None:
    _tars(images, tmp_path)
    shutil.copy(tmp_path / "train-002.tar", tmp_path / "val-000.tar")
    assert [path.name for path in matching(f"{tmp_path}/train-{{000..002}}.tar")] == [
        "train-000.tar",
        "train-001.tar",
        "train-002.tar",
    ]
    assert len(open_source(f"{tmp_path}/train-00[01].tar")) == 12
    assert len(open_source(f"{tmp_path}/{{train,val}}-*.tar")) == 24
    assert len(open_source(tmp_path / "train-000.tar")) == 6
    assert splits_of(tmp_path) == ("train", "val")
    assert len(open_source(tmp_path, split="val")) == 6
    with pytest.raises(ValueError, match=r"names .*train-003.tar, which is not there"):
        open_source(f"{tmp_path}/train-{{000..003}}.tar")
    with pytest.raises(ValueError, match=r"no split 'vall'.*did you mean 'val'"):
        open_source(tmp_path, split="vall")


def test_samples_of_a_tar_are_those_of_the_layout(images: Path, tmp_path: Path) -> None:
    png = _files(images)[0].read_bytes()
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for name in ("x.png", "x.mask.png", "y.left.png", "y.right.png", "._x.png", ".hidden/z.png"):
            _add(archive, name, png)
        _add(archive, "x.json", b'{"label": 3}')
        _add(archive, "y.json", b'{"other": 3}')
    source = open_source(tmp_path)
    assert [Path(source.name(index)).name for index in range(len(source))] == ["x.png", "y.left.png", "y.right.png"]
    with pytest.raises(ValueError, match=r"2 images have no label, the first: y.left.png; expected: y.cls"):
        open_source(tmp_path, labelled=True)


def test_damage_is_named(images: Path, tmp_path: Path) -> None:
    whole = (_tars(images, tmp_path) / "train-000.tar").read_bytes()
    cut = tmp_path / "cut.tar"
    cut.write_bytes(whole[: 3 * 512 + 700])
    source = open_source(cut)
    assert len(source) == 1
    assert source.problems == {str(cut): "is damaged: it is cut off, there is no mark of its end"}
    cut.write_bytes(whole[:1200])
    with pytest.raises(ValueError, match=r"holds no image that can be read.*is cut off: the archive ends"):
        open_source(cut)
    (tmp_path / "packed.tar").write_bytes(b"\x1f\x8b" + bytes(100))
    with pytest.raises(ValueError, match="compressed tar"):
        open_source(tmp_path / "packed.tar")
    packed = _zip(images, tmp_path)
    content = bytearray(packed.read_bytes())
    good = open_source(packed)
    offset = int(good.places[0, 1])  # pyright: ignore
    content[offset + 60] ^= 255
    packed.write_bytes(content)
    with pytest.raises(UnreadableImage, match="check sum is another"):
        open_source(packed).open(0)


def test_tables_without_images_or_labels_say_what_they_have(images: Path, tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["a"], "n": [1]}), tmp_path / "x.parquet")
    with pytest.raises(ValueError, match=r"no column of images: text, n; expected: a column image"):
        open_source(tmp_path)
    rows = [_files(images)[0].read_bytes(), None]
    pq.write_table(pa.table({"photo": rows}), tmp_path / "x.parquet")
    source = open_source(tmp_path)
    assert source.open(0).height == 20
    with pytest.raises(UnreadableImage, match="holds no image"):
        source.open(1)
    with pytest.raises(ValueError, match="no column of labels; it has photo"):
        open_source(tmp_path, labelled=True)


def test_a_data_set_in_parts_asks_for_one_of_them(images: Path, tmp_path: Path) -> None:
    import datasets

    table = datasets.Dataset.from_dict({"image": [_files(images)[0].read_bytes()]})
    datasets.DatasetDict({"train": table, "test": table}).save_to_disk(tmp_path / "parts")
    with pytest.raises(ValueError, match=r"is divided into splits; choose one with data.split: train"):
        open_source(tmp_path / "parts")
    with pytest.raises(ValueError, match=r"no split 'trian'; .*did you mean 'train'"):
        open_source(tmp_path / "parts", split="trian")
