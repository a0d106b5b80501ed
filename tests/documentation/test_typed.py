"""Every block of python, and every command in bash, is run as it stands, page by page."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from documentation.pages import DOCS, ROOT, Block, Command, blocks, commands, pages
from documentation.photos import make_photos
from documentation.typist import Typist, folder_for

TYPED = [page for page in pages() if any(block.language in ("python", "bash") for block in blocks(page))]
OF_THE_INSTALLATION = [
    "python3 -m venv simmim-env",
    "source simmim-env/bin/activate",
    "pip install",
    "simmim --version",
]
"""What `make quick-start` types; here simmim is installed already."""

pytestmark = pytest.mark.xdist_group("documentation")


@pytest.fixture(scope="module", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def ready(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos, labels, and one run that the pages go on from."""
    folder = tmp_path_factory.mktemp("ready")
    make_photos(folder)
    words = ["simmim", "pretrain", "tiny", "--data", "photos", "--out", "runs/first"]
    Typist(folder).type_command(Command("the run that pages go on from", {}, words))
    return folder


@pytest.mark.parametrize("page", TYPED, ids=lambda page: page.name)
def test_a_page_runs_from_its_head_to_its_end(page: Path, ready: Path, tmp_path: Path) -> None:
    typist = Typist(folder_for(page, ready, tmp_path / "here"))
    for block in blocks(page):
        is_file = block.language == "yaml" and block.text.startswith("# ")
        if (is_file or block.language in ("python", "bash")) and not _is_installation(block):
            typist.type_block(block)
    for command in [command for block in blocks(page) if block.language == "bash" for command in commands(block)]:
        if "--out" in command.words:
            assert (tmp_path / "here" / command.words[command.words.index("--out") + 1]).exists()


def _is_installation(block: Block) -> bool:
    return block.page.name == "start.md" and block.text.startswith(OF_THE_INSTALLATION[0])


def test_the_installation_is_what_quick_start_types() -> None:
    first = next(block for block in blocks(DOCS / "start.md") if block.language == "bash")
    assert [
        line.startswith(start) for line, start in zip(first.text.splitlines(), OF_THE_INSTALLATION, strict=True)
    ] == [True] * 4


def test_the_python_of_the_readme_runs_as_it_stands_there(ready: Path, tmp_path: Path) -> None:
    page = ROOT / "README.md"
    typist = Typist(folder_for(page, ready, tmp_path / "here"))
    (block,) = [block for block in blocks(page) if block.language == "python"]
    loss, shapes = typist.type_block(block).strip().splitlines()[-1].split(" ", 1)
    assert float(loss) > 0
    assert shapes == "(2, 65, 96) (2, 96, 8, 8)"
