"""Tensors in a file: safetensors with words about them, equal bytes for equal contents, checked before it is believed."""

import errno
import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file  # pyright: ignore[reportUnknownVariableType]
from torch import Tensor

from simmim.files import write_atomically


class DamagedFile(ValueError):  # noqa: N818 - it names what was found
    """A file that is not what was saved."""


class TensorFile(NamedTuple):
    """What a file of tensors holds."""

    tensors: dict[str, Tensor]
    words: dict[str, str]
    """What is said of them, by name."""


def write_tensors(path: Path, tensors: Mapping[str, Tensor], words: Mapping[str, str]) -> None:
    """Write tensors with words about them, atomically, with a digest by which damage is found.

    Raises:
        simmim.files.DiskFull: where there is no room; what lay there before is untouched.
    """
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    words = {**words, "digest": _digest(plain, words)}

    def write(part: Path) -> None:
        try:
            save_file(plain, part, metadata=words)
        except SafetensorError as error:
            number = re.search(r"os error (\d+)", str(error))
            raise OSError(int(number[1]) if number else errno.EIO, str(error)) from error
        _sort_words(part)

    write_atomically(path, write)


def _sort_words(path: Path) -> None:
    """Put the words in order: safetensors writes them in another one each time, and equal runs should give equal files."""
    with path.open("r+b") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        assert len(text) <= length, "the same header in another order is no longer"
        file.seek(8)
        file.write(text.ljust(length))


def read_words(path: Path) -> dict[str, str]:
    """The words of a file, without its tensors; its digest is not checked.

    Raises:
        DamagedFile: where it cannot be read.
    """
    try:
        with _open(path) as file:
            words = dict(file.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise DamagedFile(f"{path} cannot be read: {error}") from error
    words.pop("digest", None)
    return words


def read_tensors(path: Path) -> TensorFile:
    """Read a file of tensors, and believe it only if its digest is right.

    Raises:
        DamagedFile: where the file is cut, altered, or not one of ours.
    """
    try:
        with _open(path) as file:
            words = dict(file.metadata() or {})
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
    except (SafetensorError, OSError) as error:
        raise DamagedFile(f"{path} cannot be read: {error}") from error
    if "digest" not in words:
        raise DamagedFile(f"{path} was not written by simmim: it holds tensors, but no digest of them")
    digest = words.pop("digest")
    if digest != _digest(tensors, words):
        raise DamagedFile(f"{path} is damaged: its contents are not what was saved")
    return TensorFile(tensors, words)


def _open(path: Path) -> Any:
    """safetensors' own reader, which says no types."""
    return safe_open(path, framework="pt")


def _digest(tensors: Mapping[str, Tensor], words: Mapping[str, str]) -> str:
    """A digest of all that a file says: the words, and of every tensor its name, type, shape and bytes."""
    digest = hashlib.blake2b(json.dumps(sorted(words.items())).encode(), digest_size=16)
    for name in sorted(tensors):
        digest.update(repr((name, tensors[name].dtype, tuple(tensors[name].shape))).encode())
        digest.update(memoryview(cast(Any, tensors[name].reshape(-1).view(torch.uint8).numpy())))
    return digest.hexdigest()
