import os
import pickle
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from simmim.data import Source, choose_labels, hold_out, open_source, splits_of
from simmim.data import index as index_module
from simmim.data.files import Paths
from simmim.data.index import cache_file, index_folder, scan_folder
from simmim.units import LabelShare


def settle(root: Path) -> None:
    """Date all folders back, as if nobody had written to them for a while."""
    past = time.time_ns() - 10_000_000_000
    for folder, _, _ in os.walk(root):
        os.utime(folder, ns=(past, past))


def test_paths_are_a_list_that_travels_compactly() -> None:
    names = ["a.jpg", "", "ü/b.jpg", os.fsdecode(b"bad\xff.jpg")] * 1000
    paths = Paths(names)
    assert list(paths) == names
    assert paths[-1] == names[-1]
    assert paths[1:3] == names[1:3]
    assert len(pickle.dumps(paths)) < 100_000
    assert list(pickle.loads(pickle.dumps(paths))) == names
    with pytest.raises(IndexError):
        paths[4000]


def test_a_folder_is_a_sorted_source(folder: Path) -> None:
    (folder / ".hidden").mkdir()
    (folder / ".hidden" / "x.jpg").write_bytes(b"x")
    (folder / "a" / ".x.jpg").write_bytes(b"x")
    (folder / "notes.txt").write_text("x")
    source = open_source(folder)
    names = [source.name(i) for i in range(len(source))]
    assert names == sorted(str(path) for path in folder.rglob("[0-9]*.jpg"))
    assert source.labels is None
    assert isinstance(source, Source)
    assert source.open(0).height == 40
    assert pickle.loads(pickle.dumps(source)).fingerprint == source.fingerprint


def test_class_folders_are_labels(folder: Path) -> None:
    (folder / "c" / "deeper").mkdir()
    Image.new("L", (5, 5)).save(folder / "c" / "deeper" / "z.PNG")
    Image.new("L", (5, 5)).save(folder / "stray.png")
    source = open_source(folder, labelled=True)
    assert source.classes == ("a", "b", "c")
    assert source.labels is not None
    assert source.labels.dtype == np.int64
    for index, label in enumerate(source.labels):
        assert Path(source.name(index)).relative_to(folder).parts[0] == source.classes[label]
    assert source.problems == {str(folder / "stray.png"): "lies outside the class folders"}
    with pytest.raises(ValueError, match=r"no class folders.*expected: one sub-folder a class"):
        open_source(folder / "a", labelled=True)


def test_splits_are_found_and_chosen(folder: Path) -> None:
    root = folder.parent
    folder.rename(root / "train")
    (root / "valid").symlink_to(root / "train")
    assert splits_of(root) == ("train", "val")
    assert len(open_source(root, split="val", labelled=True)) == 24
    with pytest.raises(ValueError, match="choose one, such as split='train'"):
        open_source(root, labelled=True)
    with pytest.raises(ValueError, match=r"no split 'trian'.*did you mean 'train'"):
        open_source(root, split="trian")
    with pytest.raises(ValueError, match="not divided into splits"):
        open_source(root / "train", split="train")
    assert splits_of(root / "train") == ()


def test_loops_broken_links_and_directories_named_like_files(folder: Path) -> None:
    (folder / "loop").symlink_to(folder)
    (folder / "a" / "up").symlink_to("..")
    (folder / "gone.jpg").symlink_to("nowhere")
    (folder / "empty.jpg").touch()
    os.mkfifo(folder / "pipe.jpg")
    (folder / "x.jpg").mkdir()
    Image.new("L", (5, 5)).save(folder / "x.jpg" / "y.png")
    (folder / "linked.png").symlink_to(folder / "x.jpg" / "y.png")
    source = open_source(folder)
    assert len(source) == 26
    assert {Path(path).name: reason for path, reason in source.problems.items()} == {
        "gone.jpg": "is a broken link",
        "empty.jpg": "is empty",
        "pipe.jpg": "is not a file",
    }


def test_the_index_is_kept_until_the_folder_changes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scans: list[Path] = []

    def counted(root: Path, **options: Any) -> Any:
        scans.append(root)
        return scan_folder(root, **options)

    monkeypatch.setattr(index_module, "scan_folder", counted)
    settle(folder)
    first, again = index_folder(folder), index_folder(folder)
    assert (first, len(scans)) == (again, 1)
    Image.new("L", (5, 5)).save(folder / "b" / "new.png")
    assert "b/new.png" in index_folder(folder).files
    settle(folder)
    index_folder(folder)
    (folder / "b" / "new.png").unlink()
    assert index_folder(folder).files == first.files
    (folder / "deep" / "er").mkdir(parents=True)
    assert "deep/er" in index_folder(folder).folders


def test_a_folder_that_changed_just_now_is_not_trusted(folder: Path, own_cache: Path) -> None:
    index_folder(folder)
    assert not list(own_cache.rglob("*.json"))


def test_a_bad_file_that_was_mended_is_seen(folder: Path) -> None:
    (folder / "x.png").touch()
    settle(folder)
    assert index_folder(folder).problems == {"x.png": "is empty"}
    assert index_folder(folder).problems == {"x.png": "is empty"}
    Image.new("L", (5, 5)).save(folder / "x.png")
    settle(folder)
    assert not index_folder(folder).problems


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"version": 1, "files": 3}', b"\xff\xfe"])
def test_a_damaged_cache_is_ignored(folder: Path, damage: bytes) -> None:
    settle(folder)
    index = index_folder(folder)
    cache_file(folder).write_bytes(damage)
    assert index_folder(folder) == index


def test_a_cache_that_cannot_be_written_is_done_without(folder: Path, own_cache: Path) -> None:
    (own_cache / "simmim").write_text("a file in the way")
    settle(folder)
    assert len(index_folder(folder).files) == 24


def test_the_fingerprint_follows_the_set(folder: Path) -> None:
    before = open_source(folder).fingerprint
    assert open_source(folder, labelled=True).fingerprint != before
    Image.new("L", (5, 5)).save(folder / "b" / "new.png")
    assert open_source(folder).fingerprint != before
    (folder / "b" / "new.png").unlink()
    assert open_source(folder).fingerprint == before


def test_lists_of_files(folder: Path) -> None:
    file = folder / "list.txt"
    file.write_text("# mine\n\na/00.jpg\tcat\nb/01.jpg,dog\nc/02.jpg, cat\nnot,there.jpg\tcat\n")
    source = open_source(file, labelled=True)
    assert source.classes == ("cat", "dog")
    assert source.labels is not None
    assert source.labels.tolist() == [0, 1, 0]
    assert source.problems == {str(folder / "not,there.jpg"): "is not there"}
    assert source.open(1).height == 41
    file.write_text("b/01.jpg\na/00.jpg")
    source = open_source(file)
    assert [Path(source.name(i)).name for i in range(2)] == ["01.jpg", "00.jpg"]
    with pytest.raises(ValueError, match=r"line 1: b/01.jpg has no label.*b/01.jpg,cat"):
        open_source(file, labelled=True)
    file.write_text("")
    with pytest.raises(ValueError, match="the list is empty"):
        open_source(file)
    file.write_text("d/00.jpg\nd/01.jpg")
    with pytest.raises(ValueError, match="is not there, and so on, 2 in all"):
        open_source(file)


def test_csv_lists_have_headings_and_numbers(folder: Path) -> None:
    file = folder / "list.csv"
    file.write_text(f'path,label\n"a/00.jpg",3\n{folder}/b/01.jpg,0\n')
    source = open_source(file, labelled=True)
    assert source.labels is not None
    assert source.labels.tolist() == [3, 0]
    assert source.classes == ("0", "1", "2", "3")
    file.write_text("a/00.jpg,20240131123456")
    with pytest.raises(ValueError, match="too large for a class number"):
        open_source(file, labelled=True)


def test_what_cannot_be_opened_says_what_can(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"photo is not there; did you mean 'photos'\?; allowed: a folder"):
        open_source(folder.parent / "photo")
    (folder.parent / "x.rar").touch()
    with pytest.raises(ValueError, match=r"of the kind \.rar; allowed"):
        open_source(folder.parent / "x.rar")
    (folder.parent / "texts").mkdir()
    for name in ("1.txt", "2.txt", "README"):
        (folder.parent / "texts" / name).touch()
    with pytest.raises(
        ValueError, match=r"holds no image; looked for \.jpg.*found 2 x \.txt, 1 x no suffix; .*give DICOM .*\.dcm"
    ):
        open_source(folder.parent / "texts")


def test_the_built_in_digits() -> None:
    images, labels = load_digits(return_X_y=True)
    train, test, whole = (open_source("digits", split=split) for split in ("train", "test", None))
    assert (len(train), len(test), len(whole)) == (1000, 797, 1797)
    names = {source.name(i) for source in (train, test) for i in range(len(source))}
    assert names == {whole.name(i) for i in range(1797)}
    assert whole.labels is not None
    assert np.array_equal(whole.labels, labels)
    pixels = np.stack([whole.open(i).pixels()[0].numpy().ravel() for i in range(100)])
    assert np.abs(pixels * (16 / 255) - images[:100]).max() < 0.04
    assert test.labels is not None
    assert np.abs(np.bincount(test.labels) - np.bincount(labels) * 797 / 1797).max() < 1
    assert test.fingerprint == open_source("digits", split="val").fingerprint
    with pytest.raises(ValueError, match="allowed: train, val, test, all; did you mean 'train'"):
        open_source("digits", split="trains")


def test_holding_out_parts_the_classes_in_proportion() -> None:
    source = open_source("digits")
    rest, held = hold_out(source, 0.1, 7)
    assert (len(rest), len(held)) == (1617, 180)
    assert {rest.name(i) for i in range(1617)}.isdisjoint(held.name(i) for i in range(180))
    assert held.labels is not None
    assert source.labels is not None
    assert np.abs(np.bincount(held.labels) - np.bincount(source.labels) / 10).max() < 1
    assert hold_out(source, 0.1, 7)[1].fingerprint == held.fingerprint
    assert hold_out(source, 0.1, 8)[1].fingerprint != held.fingerprint
    with pytest.raises(ValueError, match="both parts need at least one"):
        hold_out(source, 0.0001, 7)


def test_a_share_of_the_labels(folder: Path) -> None:
    source = open_source("digits", split="train")
    few = choose_labels(source, LabelShare.model_validate("3 per class"), 0)
    assert few.labels is not None
    assert np.bincount(few.labels).tolist() == [3] * 10
    percent = choose_labels(source, LabelShare.model_validate("10 %"), 0)
    assert len(percent) == 100
    assert len(choose_labels(source, LabelShare.model_validate("0.1 %"), 0)) == 10
    assert len(choose_labels(source, LabelShare.model_validate("5000 per class"), 0)) == 1000
    assert choose_labels(source, None, 0) is source
    assert few.open(0).pixels().shape == (1, 8, 8)
    for share in ("0 per class", "1.5 per class", "101 %"):
        with pytest.raises(ValueError, match="is not possible"):
            choose_labels(source, LabelShare.model_validate(share), 0)
    with pytest.raises(ValueError, match="labelled source"):
        choose_labels(open_source(folder), LabelShare.model_validate("1 %"), 0)
