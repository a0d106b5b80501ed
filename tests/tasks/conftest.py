"""Images for whole runs, and a cache of their own."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tasks.support import folder_of_pictures


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Folders are indexed into a cache that the tests throw away."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """As in the processes that the tests start; results to the last bit depend on the number of threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 colour images of 100 x 150 pixels."""
    return folder_of_pictures(tmp_path_factory.mktemp("data") / "pictures", 40)
