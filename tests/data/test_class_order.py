"""Folders and lists of classes, as people have them."""

from pathlib import Path

import pytest

from simmim.config import load
from simmim.data import LabelledDataConfig, choose_labels, open_source, splits_of
from tasks.support import picture


def folders(root: Path, names: list[str], each: int = 1) -> Path:
    for name in names:
        (root / name).mkdir(parents=True)
        for number in range(each):
            picture(number, 20, 20).save(root / name / f"{number}.png")
    return root


def test_numbered_folders_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    """ImageNet-V2's are named 0 to 999, and "10" is no neighbour of "1"."""
    source = open_source(folders(tmp_path / "v2", [str(number) for number in range(12)]), labelled=True)
    assert source.classes == tuple(map(str, range(12)))
    assert source.labels is not None
    assert {Path(source.name(i)).parent.name: int(source.labels[i]) for i in range(len(source))} == {
        str(number): number for number in range(12)
    }


def test_one_name_that_is_no_number_leaves_all_in_the_order_of_words(tmp_path: Path) -> None:
    source = open_source(folders(tmp_path / "x", ["2", "10", "cat"]), labelled=True)
    assert source.classes == ("10", "2", "cat")


def test_an_imagenet_folder_is_learned_from_in_train_and_judged_in_val(tmp_path: Path) -> None:
    names = ["n01440764", "n01443537"]
    folders(tmp_path / "imagenet" / "train", names, each=3)
    folders(tmp_path / "imagenet" / "val", names)
    assert splits_of(tmp_path / "imagenet") == ("train", "val")
    training = open_source(tmp_path / "imagenet", split="train", labelled=True)
    assert (len(training), training.classes) == (6, tuple(names))


@pytest.mark.parametrize("heading", ["", "file,label\n"])
def test_a_csv_of_labels_is_read_with_a_heading_or_without(heading: str, tmp_path: Path) -> None:
    folders(tmp_path / "images", ["a"], each=3)
    (tmp_path / "labels.csv").write_text(f"{heading}images/a/0.png,dog\nimages/a/1.png,cat\nimages/a/2.png,dog\n")
    source = open_source(tmp_path / "labels.csv", labelled=True)
    assert source.classes == ("cat", "dog")
    assert source.labels is not None
    assert source.labels.tolist() == [1, 0, 1]


def test_one_per_cent_of_the_labels_is_written_as_one_says_it(tmp_path: Path) -> None:
    source = open_source("digits", split="train", labelled=True)
    for written in ("1%", "1 %"):
        share = load(LabelledDataConfig, {"labels": written}).labels
        assert len(choose_labels(source, share, seed=0)) == 10
