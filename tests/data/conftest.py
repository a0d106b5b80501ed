from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

Photo = Callable[..., NDArray[np.uint8]]


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep the indices of the tests out of the user's cache."""
    home = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(home))
    return home


@pytest.fixture
def photo() -> Photo:
    """Smooth colour pictures, as photographs are: (height, width, 3)."""

    def make(height: int, width: int, *, seed: int = 0) -> NDArray[np.uint8]:
        coarse = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), dtype=np.uint8)
        return np.array(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))

    return make


@pytest.fixture
def folder(tmp_path: Path, photo: Photo) -> Path:
    """24 small JPEG pictures in three class folders."""
    for index in range(24):
        path = tmp_path / "photos" / "abc"[index % 3] / f"{index:02d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(photo(40 + index, 60 - index, seed=index)).save(path)
    return tmp_path / "photos"
