"""The pages as the tests read them: their code, the commands in it, their links.

Three languages of code blocks, by which a reader and the tests know what is run:

- `python` and `bash` are run as they stand, in the order of the page;
- `console` is shown and not run (it needs eight GPUs, ImageNet, an hour), but its words are held against the code;
- `yaml` and `text` are shown.
"""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
LANGUAGES = {"python", "bash", "console", "yaml", "text"}


class Block(NamedTuple):
    """One block of code."""

    page: Path
    line: int
    language: str
    text: str

    @property
    def place(self) -> str:
        return f"{self.page.name}:{self.line}"


class Command(NamedTuple):
    """One command as it is typed."""

    place: str
    settings: dict[str, str]
    """Variables of the environment that stand before it."""
    words: list[str]

    @property
    def verb(self) -> str:
        return self.words[1]


def pages() -> list[Path]:
    return sorted(DOCS.glob("*.md"))


def read(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def blocks(page: Path) -> Iterator[Block]:
    """The fenced blocks of a page, with the line that each begins at."""
    text = read(page)
    for found in re.finditer(r"^( *)```(\w*)[^\n]*\n(.*?)^\1```$", text, flags=re.DOTALL | re.MULTILINE):
        inner = "\n".join(line.removeprefix(found[1]) for line in found[3].splitlines()) + "\n"
        yield Block(page, text.count("\n", 0, found.start()) + 2, found[2], inner)


def commands(block: Block) -> Iterator[Command]:
    """The commands of a block, continued lines joined, comments left out; prompts of a console are no part of them."""
    text = re.sub(r"\\\n\s*", " ", block.text)
    for line in text.splitlines():
        words = shlex.split(line.removeprefix("$ "), comments=True)
        settings: dict[str, str] = {}
        while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
            name, _, value = words.pop(0).partition("=")
            settings[name] = value
        if words:
            yield Command(block.place, settings, words)


def simmim_commands(page: Path, *languages: str) -> Iterator[Command]:
    """Every command whose program is simmim, under torchrun or not."""
    for block in blocks(page):
        if block.language in languages:
            for command in commands(block):
                if "simmim" in command.words[: command.words.index("-m") + 2 if "-m" in command.words else 1]:
                    start = command.words.index("simmim")
                    yield command._replace(words=command.words[start:])


def inline_code(page: Path) -> list[str]:
    """What stands in single backquotes outside of blocks."""
    text = re.sub(r"^( *)```.*?^\1```$", "", read(page), flags=re.DOTALL | re.MULTILINE)
    return [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", text)]


def links(page: Path) -> list[str]:
    """Where links and pictures point."""
    text = re.sub(r"^( *)```.*?^\1```$", "", read(page), flags=re.DOTALL | re.MULTILINE)
    return re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'(?:src|href)="([^"]+)"', text)


def anchors(page: Path) -> set[str]:
    """The anchors of the headings, as the site makes them."""
    text = re.sub(r"^( *)```.*?^\1```$", "", read(page), flags=re.DOTALL | re.MULTILINE)
    found: set[str] = set()
    for title in re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE):
        if given := re.search(r"\{ *#([\w-]+) *\}", title):
            found.add(given[1])
            continue
        plain = re.sub(r"[^\w\s-]", "", re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title)).strip().lower()
        found.add(re.sub(r"[-\s]+", "-", plain))
    return found
