"""The doctor: twelve planted problems are found, all of them, and none in a clean folder; what it writes is a recipe."""

import io
import json
import shlex
import subprocess
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tifffile
from PIL import Image

import simmim
from simmim.config import load, read_yaml
from simmim.data import DataConfig, Statistics, open_source
from simmim.tasks.doctor.copies import near_copies
from simmim.tasks.doctor.examine import Examination, examine
from simmim.tasks.doctor.folder import bands_of
from simmim.tasks.doctor.problem import BREAKS, COSTS
from simmim.tasks.doctor.recipe import advised_epochs
from simmim.tasks.doctor.sample import choose, look_at
from simmim.tasks.doctor.tell import tell
from simmim.tasks.doctor.trial import Trial, run_trial
from simmim.tasks.pretrain import PretrainConfig
from tasks.support import complete, folder_of_pictures, picture, rows

pytestmark = pytest.mark.xdist_group("doctor")

PLANTED = {
    "empty": "empty.png",
    "broken link": "broken link.png",
    "not an image": "text.png",
    "damaged": "truncated.jpg",
    "misnamed": "png named.jpg",
    "constant": "constant.png",
    "copies": "copy.png",
    "near copies": "near copy.png",
    "small": "small.png",
    "aspect": "long.png",
    "border": "framed.png",
    "not finite": "holes.npy",
}
"""Name of a problem, and a file that has it."""


@pytest.fixture(scope="module", autouse=True)
def no_hurry() -> Iterator[None]:
    """On a machine that does much else at once the limits of time are met; what is found within them is tested apart."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("WHOLE_SECONDS", "LONGEST_TRIAL", "LOOKING_SECONDS"):
            patch.setattr(f"simmim.tasks.doctor.examine._{name}", 300.0)
        yield


def plant(root: Path) -> None:
    (root / "empty.png").touch()
    (root / "broken link.png").symlink_to(root / "gone.png")
    (root / "text.png").write_text("this is no picture")
    stream = io.BytesIO()
    picture(900).save(stream, format="JPEG")
    (root / "truncated.jpg").write_bytes(stream.getvalue()[: len(stream.getvalue()) // 2])
    stream = io.BytesIO()
    picture(901).save(stream, format="PNG")
    (root / "png named.jpg").write_bytes(stream.getvalue())
    Image.new("RGB", (150, 100), (90, 90, 90)).save(root / "constant.png")
    picture(3).save(root / "copy.png", compress_level=9)
    near = np.asarray(picture(4)).astype(int)
    near[40:43, 60:63] += 3
    Image.fromarray(near.clip(0, 255).astype(np.uint8)).save(root / "near copy.png")
    picture(902, 40, 60).save(root / "small.png")
    picture(903, 64, 640).save(root / "long.png")
    framed = np.asarray(picture(904)).copy()
    framed[:20] = framed[-20:] = 0
    Image.fromarray(framed).save(root / "framed.png")
    values = np.asarray(picture(905)).astype(np.float32)
    values[5, 5] = np.nan
    np.save(root / "holes.npy", values)


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folder_of_pictures(tmp_path_factory.mktemp("doctor") / "clean", 120)


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Examination:
    root = folder_of_pictures(tmp_path_factory.mktemp("doctor") / "planted", 120)
    plant(root)
    return examine(root, "tiny", trial=False)


@pytest.fixture(scope="module")
def healthy(clean: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Examination, Path]:
    written = tmp_path_factory.mktemp("written") / "my.yaml"
    return examine(clean, write=written), written


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_problem_is_found_with_its_file_and_a_cure(name: str, planted: Examination) -> None:
    problem = next(problem for problem in planted.problems if problem.name == name)
    assert PLANTED[name] in [Path(path).name for path in problem.examples]
    assert problem.cure


def test_nothing_is_found_beyond_what_was_planted_and_the_masks_of_the_recipe(planted: Examination) -> None:
    # AvgDist of `tiny`, 16 px at 64 px, lies above the scaled band.
    assert {problem.name for problem in planted.problems} - set(PLANTED) <= {"avgdist"}
    weights = [problem.weight for problem in planted.problems]
    assert weights == sorted(weights, reverse=True)


def test_nothing_is_found_in_a_clean_folder(healthy: tuple[Examination, Path]) -> None:
    found, _ = healthy
    assert found.problems == []
    assert (found.images, found.looked_at) == (120, 120)
    assert found.formats == {"PNG": 120}
    assert found.sizes["median"] == (100, 150)


def test_what_is_written_is_a_recipe_that_resolves(healthy: tuple[Examination, Path], clean: Path) -> None:
    found, written = healthy
    config = simmim.resolve(written)
    assert config == found.advised == load(PretrainConfig, read_yaml(written.read_text()))
    assert isinstance(config, PretrainConfig)
    every = np.stack([np.asarray(Image.open(path)) for path in clean.iterdir()]) / 255
    assert config.data.mean == pytest.approx(every.mean(axis=(0, 1, 2)), abs=1e-3)
    assert config.data.std == pytest.approx(every.std(axis=(0, 1, 2)), abs=1e-3)
    assert config.batch <= found.images
    assert str(written) in found.command


def test_a_step_was_measured_and_its_memory_is_that_of_a_run(
    healthy: tuple[Examination, Path], clean: Path, tmp_path: Path
) -> None:
    found, written = healthy
    trial = found.fit.trial
    assert (trial.images_tried, trial.ended) == (trial.micro_batch, "")
    assert trial.images_per_second > 0
    assert found.fit.hours > 0
    assert set(trial.precisions) | set(trial.refused) == {"fp32", "bf16", "fp16"}
    words = ["schedule.duration=2 steps", "schedule.warmup=1 steps", "machine.workers=0"]
    complete("pretrain", str(written), "--data", str(clean), "--out", str(tmp_path / "run"), *words)
    peak = rows(tmp_path / "run")[-1]["memory_gib"] * 2**30
    assert trial.memory_bytes == pytest.approx(peak, rel=0.3)


FP32 = [1.0, 1.1, 1.0]


@pytest.mark.parametrize(
    ("rounds", "fastest"),
    [
        ({"fp32": FP32, "bf16": [0.9, 0.95, 0.85]}, "fp32"),  # within noise
        ({"fp32": FP32, "bf16": [0.5, 1.2, 0.5]}, "fp32"),  # not in every round
        ({"fp32": FP32, "bf16": [0.3]}, "fp32"),  # once is no measurement
        ({"fp32": FP32, "bf16": [0.5, 0.6, 0.5], "fp16": [0.49, 0.58, 0.49]}, "bf16"),  # fp16 is hardly faster still
        ({"fp32": FP32, "bf16": [0.7, 0.7, 0.7], "fp16": [0.4, 0.4, 0.4]}, "fp16"),
        ({"bf16": [2.0], "fp16": [1.0]}, "bf16"),
        ({}, "fp32"),
    ],
)
def test_another_format_than_fp32_is_taken_only_where_it_is_clearly_faster(
    rounds: dict[str, list[float]], fastest: str
) -> None:
    assert Trial(rounds=rounds).fastest == fastest


def test_what_was_found_before_the_time_was_up_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step of a recipe that is too slow for this machine: one image is known, and what follows from it is said."""
    told = {"images_tried": 1, "micro_batch": 128, "memory_fixed": 3e9, "images_per_second": 0.5}

    def never_ends(*_: Any, **more: Any) -> Any:
        raise subprocess.TimeoutExpired(
            "trial", more["timeout"], output=json.dumps(told).encode() + b'\n{"rounds": {"fp'
        )

    monkeypatch.setattr("simmim.tasks.doctor.trial.subprocess.run", never_ends)
    config = simmim.resolve("tiny")
    assert isinstance(config, PretrainConfig)
    trial = run_trial(config, Statistics(3, (0.5,) * 3, (0.2,) * 3), seconds=7)
    assert (trial.images_tried, trial.memory(128), trial.speed_in("fp16"), trial.fastest) == (1, 3e9, 0.5, "fp32")
    assert "7 s" in trial.ended


def test_it_looks_at_images_as_the_settings_say(tmp_path: Path) -> None:
    """Borders and NaN that are declared empty are no problems; pages are images; the cures name those settings."""
    root = folder_of_pictures(tmp_path / "images", 20)
    for path in sorted(root.iterdir())[:5]:
        framed = np.asarray(Image.open(path)).copy()
        framed[:20] = 0
        Image.fromarray(framed).save(path)
    stack = np.stack([np.asarray(picture(number)) for number in (50, 51, 52)])
    tifffile.imwrite(root / "stack.tif", stack, photometric="rgb")
    plain = {problem.name: problem for problem in examine(root, "tiny", trial=False).problems}
    assert {"border", "pages"} <= set(plain)
    assert "data.invalid=black" in plain["border"].cure
    assert "data.pages=each" in plain["pages"].cure
    found = examine(root, "tiny", ["data.invalid=black", "data.pages=each"], trial=False)
    assert not {"border", "pages"} & {problem.name for problem in found.problems}
    assert (found.images, found.formats["PNG"]) == (23, 20)
    assert "data.pages=each" in found.command
    assert found.statistics is not None
    every = [np.asarray(Image.open(path)) for path in root.glob("*.png")]
    valid = np.concatenate([each[20 if not each[:20].any() else 0 :].reshape(-1, 3) for each in (*every, *stack)]) / 255
    assert found.statistics.mean == pytest.approx(valid.mean(axis=0), abs=2e-3)


def test_it_is_json_and_readable_at_80_columns(
    planted: Examination, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert json.loads(json.dumps(planted.tree()))["problems"][0]["cure"]
    monkeypatch.setenv("COLUMNS", "80")
    tell(planted)
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines[:-1])) <= 80
    assert lines[-1].strip().startswith("simmim pretrain tiny")


def test_a_recipe_that_does_not_fit_is_told_with_what_does(clean: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "bad.yaml"
    recipe.write_text(
        "base: tiny\ndata: {image_size: 60 px, mean: [0.1, 0.1, 0.1], std: [0.05, 0.05, 0.05]}\nbatch: 500 images"
    )
    names = {problem.name: problem for problem in examine(clean, recipe, trial=False).problems}
    assert "nearest" in names["grid"].said
    recipe.write_text(recipe.read_text().replace("60 px", "64 px"))
    names = {problem.name: problem for problem in examine(clean, recipe, trial=False).problems}
    assert {"batch", "statistics"} <= set(names)
    assert "500" in names["batch"].said


def test_a_giant_is_not_built(clean: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("simmim.tasks.doctor.recipe.free_bytes", lambda device: 1e6)  # pyright: ignore
    found = examine(clean, "tiny")
    assert found.fit.trial.images_tried == 0
    assert "memory" in {problem.name for problem in found.problems}


def test_splits_and_kinds_that_are_not_opened_and_few_channels_in_common(tmp_path: Path) -> None:
    for split in ("train", "val"):
        folder_of_pictures(tmp_path / split, 20)
    (tmp_path / "train" / "phone.heic").write_bytes(b"x")
    folder = tmp_path / "train"
    np.save(folder / "bands.npy", np.random.default_rng(0).integers(0, 255, (100, 150, 5), dtype=np.uint8))
    dim = np.asarray(picture(7).convert("L")).astype(np.uint16) * 16
    Image.fromarray(dim).save(folder / "dim.png")
    picture(8).convert("CMYK").save(folder / "print.jpg")
    picture(9).convert("RGBA").save(folder / "glass.png")
    Image.new("RGB", (4000, 3100), (9, 9, 9)).save(folder / "huge.png")
    found = examine(tmp_path, "tiny", trial=False)
    expected = {"splits", "left out", "channels", "low range", "depth", "cmyk", "transparent", "huge"}
    assert expected <= {problem.name for problem in found.problems}
    assert found.advised is not None
    assert found.advised.data.split == "train"


def test_near_copies_agree_with_a_loop_over_all_pairs(tmp_path: Path) -> None:
    root = folder_of_pictures(tmp_path / "images", 30)
    for number in (5, 17):
        brighter = (np.asarray(picture(number)).astype(int) + 2).clip(0, 255)
        Image.fromarray(brighter.astype(np.uint8)).save(root / f"{number:04d} again.png")
    looks = look_at(open_source(root), DataConfig(image_size=(64, 64)), samples=100, seed=0, seconds=60).looks
    pairs = {frozenset(Path(path).stem for path in pair) for pair in near_copies(looks)}
    assert pairs == {frozenset({"0005", "0005 again"}), frozenset({"0017", "0017 again"})}


def test_a_sample_is_spread_and_holds_neighbours() -> None:
    chosen = choose(100_000, 1000, seed=0)
    assert 900 < len(chosen) <= 1000
    assert sum(index + 1 in set(chosen) for index in chosen) >= 480
    assert max(np.diff(chosen)) < 250
    assert choose(10, 1000, seed=0) == list(range(10))


@pytest.mark.parametrize(("images", "epochs"), [(1_280_000, 100), (128_000, 1000), (500, 2000), (14_000_000, 9)])
def test_the_rule_of_thumb_for_epochs(images: int, epochs: int) -> None:
    assert advised_epochs(images) == epochs


def test_kinds_of_bad_files_count_together_and_what_is_advised_runs(tmp_path: Path) -> None:
    """Each kind alone is within data.bad_share, all of them are not: a run would stop, and the doctor says so."""
    root = folder_of_pictures(tmp_path / "images", 36)
    (root / "empty.png").touch()
    (root / "text.png").write_text("this is no picture")
    np.save(root / "bands.npy", np.random.default_rng(0).integers(0, 255, (100, 150, 5), dtype=np.uint8))
    (root / "cut.png").write_bytes((root / "0000.png").read_bytes()[:500])
    found = examine(root, "tiny", write=tmp_path / "my.yaml", trial=False)
    problems = {problem.name: problem for problem in found.problems}
    assert {problems[name].weight for name in ("empty", "not an image", "damaged", "channels")} == {BREAKS}
    assert "7.5%" in problems["empty"].cure  # 3 of 40
    assert found.advised is not None
    assert found.advised.data.bad_share > 4 / 40
    words = [
        "schedule.duration=4 steps",
        "schedule.warmup=1 steps",
        "machine.workers=0",
        "output.evaluate_every=4 steps",
    ]
    complete("pretrain", str(tmp_path / "my.yaml"), "--data", str(root), "--out", str(tmp_path / "run"), *words)
    milder = examine(root, "tiny", ["data.bad_share=0.2"], trial=False)
    assert {problem.weight for problem in milder.problems if problem.name in ("empty", "damaged")} == {COSTS}


def test_the_command_at_the_end_is_one_that_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch larger than the set breaks `tiny`, so the recipe that fits is written first."""
    root = folder_of_pictures(tmp_path / "images", 6)
    found = examine(root, "tiny", trial=False)
    assert BREAKS in {problem.weight for problem in found.problems}
    first, second = found.command.split(" && ")
    assert "--write my.yaml" in first
    assert second.startswith("simmim pretrain my.yaml")
    monkeypatch.chdir(tmp_path)
    complete(*shlex.split(first)[1:], "--no-trial")
    complete(*shlex.split(second)[1:], "schedule.duration=2 steps", "schedule.warmup=1 steps")


def test_where_nothing_can_be_read_no_recipe_is_promised(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.png").write_text("this is no picture")
    tell(examine(tmp_path, write=tmp_path / "my.yaml", trial=False), written=str(tmp_path / "my.yaml"))
    said = " ".join(capsys.readouterr().out.split())
    assert "No recipe fits" in said
    assert "simmim pretrain" not in said
    assert not (tmp_path / "my.yaml").exists()


def test_formats_are_those_of_the_content_also_in_a_table_and_an_archive(tmp_path: Path) -> None:
    root = folder_of_pictures(tmp_path / "images", 4)
    content = [path.read_bytes() for path in sorted(root.iterdir())]
    pq.write_table(pa.table({"image": content}), tmp_path / "rows.parquet")
    with zipfile.ZipFile(tmp_path / "images.zip", "w") as archive:
        for number, data in enumerate(content):
            archive.writestr(f"{number}.jpg", data)
    assert examine(tmp_path / "rows.parquet", "tiny", trial=False).formats == {"PNG": 4}
    packed = examine(tmp_path / "images.zip", "tiny", trial=False)
    assert packed.formats == {"PNG": 4}
    assert "misnamed" in {problem.name for problem in packed.problems}


@pytest.mark.parametrize(
    ("names", "bands"),
    [
        (["a_B02.tif", "a_B03.tif", "b_B02.tif", "b_B03.tif"], ("_B02.tif", "_B03.tif")),
        (["x/t1.band1.png", "x/t1.band10.png", "x/t1.band2.png"] * 2, ()),  # one image is no pattern
        (["1-red.tif", "1-nir.tif", "2-red.tif", "2-nir.tif"], ("-nir.tif", "-red.tif")),
        (["1_ch1.png", "1_ch2.png", "2_ch1.png", "3_ch1.png"], ()),  # most are not whole
        (["IMG_0001.jpg", "IMG_0002.jpg"], ()),
        (["a_B02.tif", "a_B03.tif", "b_B02.tif", "b_B03.tif", "more.tif"], ()),
    ],
)
def test_names_of_bands_are_told_from_other_names(names: list[str], bands: tuple[str, ...]) -> None:
    assert bands_of(names) == bands


def test_a_folder_of_bands_is_recognised_until_the_recipe_says_so(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for tile in range(10):
        for band in ("B02", "B03", "B10"):
            low = Image.fromarray(random.integers(0, 255, (6, 6), dtype=np.uint8))
            low.resize((64, 64), Image.Resampling.BICUBIC).save(tmp_path / f"tile{tile}_{band}.png")
    found = next(each for each in examine(tmp_path, trial=False).problems if each.name == "bands")
    setting = found.cure.split()[1].rstrip(",")
    assert setting == "data.bands=[_B02.png,_B03.png,_B10.png]"
    again = examine(tmp_path, "tiny", [setting], trial=False)
    assert (again.images, again.channels) == (10, {"3": 10})
    assert "bands" not in {each.name for each in again.problems}
