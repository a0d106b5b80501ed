"""What was found out about a data set, kept in the user's cache folder until the data set changes."""

import hashlib
import json
import logging
import os
from pathlib import Path
from typing import Any

from simmim.files import DiskFull, write_text_atomically

_log = logging.getLogger(__name__)

_VERSION = 1


def cache_file(name: Path | str) -> Path:
    """Where the index of a folder, or of a named set of files, is kept: below `$XDG_CACHE_HOME`, or else `~/.cache`."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    text = name.resolve() if isinstance(name, Path) else name
    key = hashlib.blake2b(os.fsencode(text), digest_size=16).hexdigest()
    return home / "simmim" / "index" / f"{key}.json"


def keep(path: Path, content: dict[str, Any]) -> None:
    """Write an index with its digest; where the cache cannot be written there is none, and nothing else happens."""
    text = json.dumps(content)
    try:
        write_text_atomically(path, f"{_VERSION} {_digest(text)}\n{text}")
    except (OSError, DiskFull) as error:
        _log.debug("the index %s cannot be kept: %s", path, error)


def recall(path: Path) -> dict[str, Any] | None:
    """Read an index back; None where there is none, or it is damaged, or of another version."""
    try:
        heading, _, text = path.read_text(encoding="utf-8").partition("\n")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        _log.debug("the kept index %s is of no use: %s", path, error)
        return None
    if heading != f"{_VERSION} {_digest(text)}":
        _log.debug("the kept index %s is damaged, or of another version", path)
        return None
    return json.loads(text)


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
