"""What the documentation shows works as it stands there."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parent.parent


def _blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    generator = np.random.default_rng(0)
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(20):
        coarse = generator.integers(0, 255, (5, 6, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((90, 70), Image.Resampling.BICUBIC).save(folder / f"{number}.jpg")
    return folder


def test_the_page_of_settings_is_what_the_code_says() -> None:
    spec = importlib.util.spec_from_file_location("build_docs", ROOT / "docs" / "build.py")
    assert spec is not None
    assert spec.loader is not None
    build = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(build)
    assert build.PAGE.read_text(encoding="utf-8") == build.settings_page(), "run make docs"


def test_the_python_of_the_readme_runs_as_it_stands_there(photos: Path) -> None:
    (block,) = _blocks(ROOT / "README.md", "python")
    done = subprocess.run([sys.executable, "-c", block], cwd=photos.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    loss, shape = done.stdout.strip().splitlines()[-1].split(" ", 1)
    assert float(loss) > 0
    assert shape == "(2, 65, 96)"


def test_the_part_of_ones_own_that_the_page_shows_works(photos: Path) -> None:
    block = next(block for block in _blocks(ROOT / "docs" / "parts.md", "python") if "LeftHalf" in block)
    (photos.parent / "my_masks.py").write_text(block, encoding="utf-8")
    command = ["pretrain", "tiny", "--data", "photos", "--out", "runs/left", "masking.kind=my_masks:LeftHalf"]
    words = [
        *command,
        "schedule.duration=2 steps",
        "schedule.warmup=1 steps",
        "batch=4 images",
        "data.image_size=16 px",
    ]
    command = [sys.executable, "-m", "simmim", *words]
    done = subprocess.run(command, cwd=photos.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (photos.parent / "runs" / "left" / "encoder.safetensors").is_file()


def test_every_word_of_the_command_line_that_the_readme_shows_exists() -> None:
    from simmim.config import recipe_names

    commands = re.findall(r"simmim (\w+)", "\n".join(_blocks(ROOT / "README.md", "bash")))
    assert {"recipes", "pretrain", "reconstruct", "probe", "finetune", "explain"} <= set(commands)
    shown = set(re.findall(r"pretrain (\w+) ", "\n".join(_blocks(ROOT / "README.md", "bash"))))
    assert shown <= set(recipe_names())
