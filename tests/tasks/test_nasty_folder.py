"""A folder as one finds it: what can be read is trained on, and bad_files.txt tells the truth about the rest."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import simmim
from tasks.support import folder_of_pictures, picture, rows

pytestmark = pytest.mark.xdist_group("nasty")

SETTINGS: dict[str, Any] = {"output.progress": False, "machine.workers": 1, "schedule.duration": "3 epochs"}


def _truncated(path: Path) -> None:
    stream = io.BytesIO()
    picture(1).save(stream, format="JPEG")
    path.write_bytes(stream.getvalue()[: len(stream.getvalue()) // 2])


def _damaged(path: Path) -> None:
    """Right to the end of its header, and a broken stream behind it."""
    stream = io.BytesIO()
    picture(2).save(stream, format="PNG")
    whole = bytearray(stream.getvalue())
    whole[len(whole) // 2 : len(whole) // 2 + 40] = bytes(40)
    path.write_bytes(whole)


@pytest.fixture(scope="module")
def nasty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """150 ordinary pictures in two folders, 14 odd ones that are good, 6 that are bad."""
    root = tmp_path_factory.mktemp("nasty") / "images"
    folder_of_pictures(root / "a" / "deep", 75, height=70, width=90)
    folder_of_pictures(root / "b", 75, height=64, width=64)
    for number in range(20):  # ordinary ones, but JPEG
        picture(500 + number).save(root / "b" / f"photo{number}.jpeg")
    odd = root / "odd files"
    odd.mkdir()
    # Good.
    stream = io.BytesIO()
    picture(3).save(stream, format="PNG")
    (odd / "png named.jpg").write_bytes(stream.getvalue())
    picture(4).convert("CMYK").save(odd / "cmyk.jpg")
    picture(5).quantize(16).save(odd / "palette.png")
    frames = [picture(number) for number in (6, 7)]
    frames[0].save(odd / "animated.gif", save_all=True, append_images=frames[1:])
    frames[0].save(odd / "animated.webp", save_all=True, append_images=frames[1:])
    turned = Image.Exif()
    turned[0x0112] = 6
    picture(8).save(odd / "turned.jpg", exif=turned)
    picture(9).convert("L").save(odd / "grey.png")
    picture(10).convert("1").save(odd / "black and white.png")
    picture(11).convert("RGBA").save(odd / "with alpha.png")
    Image.new("RGB", (1, 1), (200, 30, 30)).save(odd / "one pixel.png")
    Image.fromarray(np.full((30, 20_000, 3), 90, dtype=np.uint8)).save(odd / "long.png")
    (odd / "a folder.jpg").mkdir()
    picture(12).save(odd / "a folder.jpg" / "inside.png")
    picture(13).save(odd / "UPPER.JPG")
    (odd / "good link.png").symlink_to(odd / "grey.png")
    # Neither good nor bad: nobody says that these are images.
    (odd / "notes.txt").write_text("nothing to see")
    (odd / ".hidden.png").write_bytes(b"")
    # Bad.
    (odd / "empty.png").write_bytes(b"")
    _truncated(odd / "truncated.jpg")
    _damaged(odd / "damaged.png")
    (odd / "text.png").write_text("this is no picture")
    (odd / "broken link.jpg").symlink_to(odd / "gone.jpg")
    np.save(odd / "objects.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    return root


BAD = {
    "empty.png": "empty",
    "truncated.jpg": "damaged",
    "damaged.png": "damaged",
    "text.png": "not an image",
    "broken link.jpg": "broken link",
    "objects.npy": "damaged",
}


@pytest.fixture(scope="module")
def run(nasty: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    settings = {**SETTINGS, "output.log_every": "1 steps", "output.save_every": "1 epochs"}
    return simmim.pretrain("tiny", data=nasty, out=tmp_path_factory.mktemp("nasty run") / "run", settings=settings).path


def test_the_run_ends_well_on_finite_losses(run: Path) -> None:
    reports = rows(run)
    assert (run / "encoder.safetensors").exists()
    assert np.isfinite([row["loss"] for row in reports]).all()
    assert reports[-1]["skipped_steps"] == 0


def test_exactly_the_bad_files_are_listed_each_once_with_its_reason(run: Path, nasty: Path) -> None:
    lines = [line.split("\t") for line in (run / "bad_files.txt").read_text().splitlines()]
    assert sorted(path for path, _ in lines) == sorted(str(nasty / "odd files" / name) for name in BAD)
    for path, reason in lines:
        assert BAD[Path(path).name] in reason


def test_a_list_of_the_files_gives_the_same_bad_ones(nasty: Path, tmp_path: Path) -> None:
    listing = tmp_path / "list.txt"
    files = [path for path in sorted(nasty.rglob("*")) if path.suffix in {".png", ".jpg", ".jpeg", ".JPG", ".npy"}]
    listing.write_text("\n".join(str(path) for path in files if not path.is_dir() and path.name[0] != "."))
    out = simmim.pretrain("tiny", data=listing, out=tmp_path / "run", settings=SETTINGS).path
    assert {Path(line.split("\t")[0]).name for line in (out / "bad_files.txt").read_text().splitlines()} == set(BAD)


@pytest.mark.parametrize("kind", ["seen at once", "seen when read"])
def test_too_many_bad_files_stop_the_run_and_the_count_and_share_are_named(kind: str, tmp_path: Path) -> None:
    folder = folder_of_pictures(tmp_path / "images", 45, height=64, width=64)
    for number in range(5):
        path = folder / f"bad {number}.jpg"
        _truncated(path) if kind == "seen when read" else path.touch()
    with pytest.raises(ValueError, match="bad_share") as error:
        simmim.pretrain("tiny", data=folder, out=tmp_path / "run", settings=SETTINGS)
    said = str(error.value)
    assert " of 50 files" in said
    assert "5 %" in said
    assert str(tmp_path / "run" / "bad_files.txt") in said
    count = int(said.split(" of 50 files")[0].split()[-1])
    assert 3 <= count <= 5  # more than 5 %, and it stops as soon as it knows
    assert f"{count * 2} %" in said
    assert len((tmp_path / "run" / "bad_files.txt").read_text().splitlines()) == count


def test_more_bad_files_are_taken_where_the_recipe_allows_it(tmp_path: Path) -> None:
    folder = folder_of_pictures(tmp_path / "images", 36, height=64, width=64)
    for number in range(12):
        _truncated(folder / f"bad {number:02d}.jpg")
    settings = {**SETTINGS, "data.bad_share": 0.3, "schedule.duration": "2 epochs"}
    out = simmim.pretrain("tiny", data=folder, out=tmp_path / "run", settings=settings).path
    assert len((out / "bad_files.txt").read_text().splitlines()) == 12


@pytest.mark.parametrize("kind", ["no images at all", "only empty files", "only unreadable files"])
def test_a_folder_without_an_image_is_one_clear_sentence(kind: str, tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(20):
        if kind == "only unreadable files":
            _truncated(folder / f"{number}.jpg")
        else:
            (folder / f"{number}{'.jpg' if kind == 'only empty files' else '.doc'}").touch()
    with pytest.raises(ValueError, match="image") as error:
        simmim.pretrain("tiny", data=folder, out=tmp_path / "run", settings=SETTINGS)
    assert str(folder) in str(error.value)


def test_a_data_folder_that_is_not_there_is_named_with_its_likely_neighbour(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    with pytest.raises(ValueError, match=r"not there.*photos"):
        simmim.pretrain("tiny", data=tmp_path / "photo", out=tmp_path / "run", settings=SETTINGS)
