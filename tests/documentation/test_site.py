"""The site that `make docs` builds: without a warning, whole, and asking nothing of a network."""

import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag

import pytest

from documentation.pages import DOCS, ROOT, pages

FETCHED = {"script": "src", "img": "src", "link": "href", "iframe": "src", "source": "src"}
"""What a browser asks for by itself; a link that a person follows is no such thing."""


class _Page(HTMLParser):
    """What a page asks for, where its links go, and its anchors."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.asked: list[str] = []
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.anchors |= {given[name] for name in ("id", "name") if name in given}
        if tag in FETCHED and FETCHED[tag] in given and given.get("rel") != "canonical":
            self.asked.append(given[FETCHED[tag]])
        if tag == "a" and "href" in given:
            self.links.append(given["href"])


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built beside the checkout; the builder ends with an error where it has a warning."""
    folder = tmp_path_factory.mktemp("site")
    shutil.copytree(DOCS, folder / "docs")
    shutil.copy(ROOT / "zensical.toml", folder)
    program = Path(sys.executable).with_name("zensical")
    done = subprocess.run([str(program), "build", "--strict"], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Warning" not in done.stdout + done.stderr
    return folder / "build" / "site"


@pytest.fixture(scope="module")
def built(site: Path) -> dict[str, _Page]:
    return {path.name: _Page(path.read_text(encoding="utf-8")) for path in site.glob("*.html")}


def test_every_page_is_built(built: dict[str, _Page]) -> None:
    assert {page.with_suffix(".html").name for page in pages()} | {"404.html"} == set(built)


def test_no_page_asks_anything_of_a_network(site: Path, built: dict[str, _Page]) -> None:
    for name, page in built.items():
        assert page.asked
        assert [asked for asked in page.asked if re.match(r"(https?:)?//", asked)] == [], name
    for style in site.rglob("*.css"):
        assert re.findall(r"(?:url\(|@import )['\"]?(?:https?:)?//", style.read_text(encoding="utf-8")) == [], style


def test_what_a_page_asks_for_and_links_to_is_there(site: Path, built: dict[str, _Page]) -> None:
    broken: list[str] = []
    for name, page in built.items():
        if name == "404.html":  # it is served at any address
            continue
        for link in [*page.asked, *page.links]:
            path, anchor = urldefrag(unquote(link))
            if re.match(r"[a-z]+:", path):
                continue
            target = (site / path) if path not in ("", ".") else site / ("index.html" if path == "." else name)
            if not target.exists() or (anchor and anchor not in built[target.name].anchors):
                broken.append(f"{name}: {link}")
    assert broken == []


def test_no_program_is_part_of_the_site(site: Path) -> None:
    assert list(site.rglob("*.py")) == []
