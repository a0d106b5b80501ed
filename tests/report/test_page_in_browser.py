"""report.html as a person meets it: in a real browser, dark and light, on a phone, without a network."""

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from report.browser import Unreachable, fetch, find_browser, libraries_of
from report.made_up import made_up_facts, made_up_pictures, made_up_rows
from simmim.report import Result, write_comparison, write_page

pytestmark = pytest.mark.xdist_group("browser")

HOSTILE = "</td><script>document.title='stolen'</script><img src=http://example.org/x.png onerror=alert(1)>.png"
Open = Callable[..., AbstractContextManager[Page]]


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    path = _browser_or_skip()
    with sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--disable-gpu"]
        browser = playwright.chromium.launch(executable_path=path, args=arguments, env=libraries_of(path))
        yield browser
        browser.close()


def _browser_or_skip() -> Path:
    """The browser, fetched if need be; where it cannot be had, a skip, or a failure where the tests are about it."""
    try:
        return fetch()
    except Unreachable as problem:
        if os.environ.get("SIMMIM_NEEDS_BROWSER"):
            pytest.fail(str(problem))
        pytest.skip(str(problem))


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    facts = made_up_facts(
        pictures=made_up_pictures(folder, [100, 200, 400], size=(192, 192)),
        bad_files=[(HOSTILE, "cannot identify image file"), ("a" * 300, "truncated")],
        warnings=["2026-01-01 WARNING <b>two files</b>"],
        results=[Result("Fine-tuning", [("accuracy", "91.2%")])],
    )
    write_page(folder / "report.html", facts)
    return folder / "report.html"


@pytest.fixture
def opened(chromium: Browser) -> Open:
    """Opens a page; what it asks of a network, and what it complains of, is a failure."""

    @contextmanager
    def open_it(path: Path, **settings: Any) -> Iterator[Page]:
        complaints: list[str] = []
        context = chromium.new_context(**{"viewport": {"width": 1000, "height": 800}, **settings})
        page = context.new_page()
        page.on("console", lambda message: complaints.append(f"console: {message.text}"))
        page.on("pageerror", lambda error: complaints.append(f"error: {error}"))
        page.on("request", lambda request: complaints.append(request.url) if _leaves(request.url, path) else None)
        page.goto(path.as_uri())
        yield page
        context.close()
        assert complaints == []

    return open_it


def _leaves(url: str, path: Path) -> bool:
    return not url.startswith("data:") and url != path.as_uri()


def test_the_slider_shows_one_prediction_after_another(opened: Open, page_file: Path) -> None:
    with opened(page_file) as page:
        shown = page.locator(".predicted img.shown")
        assert shown.count() == 3
        assert page.locator("#shown-step").inner_text() == "step 400"
        newest = shown.first.get_attribute("src")
        page.focus("#step")
        page.keyboard.press("ArrowLeft")
        assert page.locator("#shown-step").inner_text() == "step 200"
        assert shown.count() == 3
        assert shown.first.is_visible()
        assert shown.first.get_attribute("src") != newest
        page.keyboard.press("Home")
        assert page.locator("#shown-step").inner_text() == "step 100"


def test_names_of_files_stay_words(opened: Open, page_file: Path) -> None:
    with opened(page_file) as page:
        assert page.title() == "first: learning"
        assert page.get_by_text(HOSTILE).count() == 1


@pytest.mark.parametrize("width", [390, 820])
def test_nothing_is_wider_than_a_phone(opened: Open, page_file: Path, width: int) -> None:
    with opened(page_file, viewport={"width": width, "height": 800}) as page:
        assert page.evaluate("document.documentElement.scrollWidth") == width
        narrow, wide = (page.locator(f"figure > .{name}").is_visible() for name in ("narrow", "wide"))
        assert (narrow, wide) == (width < 640, width > 640)


def test_it_follows_dark_and_light_and_can_be_told(opened: Open, page_file: Path) -> None:
    def brightness(page: Page, what: str) -> int:
        text = page.evaluate(what)
        return sum(int(part) for part in text.removeprefix("rgb(").removesuffix(")").split(","))

    paper = "getComputedStyle(document.body).backgroundColor"
    line = "getComputedStyle(document.querySelector('figure .wide svg path[style*=\"--line-1\"]')).stroke"
    seen = {}
    for scheme in ("light", "dark"):
        with opened(page_file, color_scheme=scheme) as page:
            seen[scheme] = brightness(page, paper), brightness(page, line)
            page.click("#theme")
            seen[f"{scheme}, told otherwise"] = brightness(page, paper), brightness(page, line)
    assert seen["light"] == seen["dark, told otherwise"]
    assert seen["dark"] == seen["light, told otherwise"]
    assert seen["light"][0] > 600 > 150 > seen["dark"][0]
    assert seen["light"][1] < seen["dark"][1]


def test_it_can_be_read_without_scripts(opened: Open, page_file: Path) -> None:
    with opened(page_file, java_script_enabled=False) as page:
        assert page.locator(".word").inner_text() == "Learning"
        assert page.locator(".predicted img").count() == 9
        assert all(image.is_visible() for image in page.locator(".predicted img").all())
        assert not page.locator("#step").is_visible()


def test_several_runs_lie_side_by_side(opened: Open, tmp_path: Path) -> None:
    other = made_up_facts(
        made_up_rows(lambda share: 0.8), name="second<i>", folder="runs/second", settings={"batch": "32 images"}
    )
    write_comparison(tmp_path / "compare.html", [made_up_facts(), other])
    with opened(tmp_path / "compare.html", viewport={"width": 390, "height": 800}) as page:
        assert page.evaluate("document.documentElement.scrollWidth") == 390
        assert page.locator(".word").all_inner_texts() == ["Learning", "Not at all"]
        table = page.locator("table.compare").nth(1).inner_text()
        assert "16 images" in table
        assert "32 images" in table
        assert page.locator("figure").first.locator("svg path[style*='--line-2']").count() == 1
        assert "second<i>" in page.locator(".legend").first.inner_text()


@pytest.fixture
def nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine without a browser and without npm, but for what a test puts in this folder."""
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.delenv("SIMMIM_CHROMIUM", raising=False)
    monkeypatch.setattr("report.browser.PLACE", tmp_path / "environment" / "browser")
    (tmp_path / "bin").mkdir()
    return tmp_path / "bin"


def test_a_missing_browser_is_an_error_that_says_how_to_get_one(nowhere: Path) -> None:
    with pytest.raises(FileNotFoundError, match="make test-browser"):
        find_browser()
    with pytest.raises(Unreachable, match=r"npm is not installed.*make test-browser"):
        fetch()


def test_npm_is_tried_again_and_then_believed(nowhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("report.browser.time.sleep", lambda seconds: None)  # pyright: ignore
    tried = nowhere / "tried"
    (nowhere / "npm").write_text(f"#!/bin/sh\necho x >> {tried}\necho network is unreachable >&2\nexit 1\n")
    (nowhere / "npm").chmod(0o755)
    with pytest.raises(Unreachable, match=r"in 3 tries: network is unreachable; .*make test-browser"):
        fetch()
    assert tried.read_text().count("x") == 3


@pytest.mark.parametrize("needed", [False, True])
def test_without_a_browser_tests_are_skipped_unless_they_are_what_was_asked_for(
    nowhere: Path, monkeypatch: pytest.MonkeyPatch, needed: bool
) -> None:
    if needed:
        monkeypatch.setenv("SIMMIM_NEEDS_BROWSER", "1")
    else:
        monkeypatch.delenv("SIMMIM_NEEDS_BROWSER", raising=False)
    with pytest.raises(pytest.fail.Exception if needed else pytest.skip.Exception, match="make test-browser"):
        _browser_or_skip()
