"""Types what a page shows, in one process: starting Python and torch for every command would take minutes."""

import contextlib
import importlib
import io
import os
import re
import shutil
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from documentation.pages import Block, Command, blocks, commands
from simmim.cli import app, main

SHORT = ["schedule.duration=2 steps", "schedule.warmup=1 steps"]
"""What is laid over every training that a page shows: two steps, so that every page can be typed."""


class Typist:
    """Runs the blocks of a page in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._names: dict[str, Any] = {"__name__": "__main__"}

    def type_block(self, block: Block) -> str:
        """What the block prints."""
        if block.language == "python":
            return self._run_python(block)
        if block.language == "yaml":
            named = re.match(r"# (\w+\.yaml)\n", block.text)
            assert named, f"{block.place}: a recipe or study that is run begins with its file name, '# name.yaml'"
            (self.folder / named[1]).write_text(block.text, encoding="utf-8")
            return ""
        return "".join(self.type_command(command) for command in commands(block))

    def type_command(self, command: Command) -> str:
        assert command.words[0] == "simmim", f"{command.place}: only simmim is typed here; mark the block as console"
        words = [*command.words, *(SHORT if command.verb in ("pretrain", "finetune", "tokenizer", "ablate") else [])]
        with pytest.MonkeyPatch.context() as patch, contextlib.chdir(self.folder):
            patch.setattr(sys, "argv", words)
            for path in command.settings.get("PYTHONPATH", "").split(os.pathsep):
                patch.syspath_prepend(str(self.folder / path) if path else "")
            said, complained = io.StringIO(), io.StringIO()
            status: object = None
            try:
                with contextlib.redirect_stdout(said), contextlib.redirect_stderr(complained):
                    main(partial(app, words[1:]))
            except SystemExit as end:
                status = end.code
        assert status in (None, 0), f"{command.place}: {' '.join(words)}\n{complained.getvalue()}"
        return said.getvalue()

    def _run_python(self, block: Block) -> str:
        if named := re.match(r"# (\w+)\.py\n", block.text):
            (self.folder / f"{named[1]}.py").write_text(block.text, encoding="utf-8")
            sys.modules.pop(named[1], None)
            importlib.invalidate_caches()
            return ""
        said = io.StringIO()
        with contextlib.chdir(self.folder), contextlib.redirect_stdout(said):
            exec(compile(block.text, block.place, "exec"), self._names)
        return said.getvalue()


def folder_for(page: Path, ready: Path, where: Path) -> Path:
    """A folder with what the page takes for granted: photos, labelled, unseen, and runs/first unless the page makes it."""
    shutil.copytree(ready, where)
    if "--out runs/first " in "".join(f"{block.text} ".replace("\n", " ") for block in blocks(page)):
        shutil.rmtree(where / "runs" / "first")
    return where
