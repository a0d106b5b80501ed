"""Files of tensors that others wrote: torch's (zip and old), safetensors. A pickle in them is read, never run."""

import json
import pickletools
import re
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from io import BytesIO
from itertools import chain
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from simmim.config import nearest
from simmim.tensors import DamagedFile

_IN_A_ROW = 4  # torch's old files: a number, a protocol, the machine, and what was saved
_CONTAINERS = ("model", "state_dict", "model_state_dict", "module", "model_ema")
"""Under which word programs keep the weights, beside optimizer and counters."""


class UnsafeFile(ValueError):  # noqa: N818 - it names what was found
    """A file that asks for code to be run; nothing of it was."""


class _Inert:
    """Stands where a foreign class or function is named in a pickle; forgets what it is given and does nothing."""

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass


_DICTIONARIES = ("yacs.config.CfgNode", "argparse.Namespace", "mmengine.config.config.ConfigDict")
_FORGOTTEN = (
    "pathlib.PosixPath",
    "pathlib._local.PosixPath",
    "numpy.core.multiarray.scalar",
    "numpy._core.multiarray.scalar",
    "numpy.core.multiarray._reconstruct",
    "numpy._core.multiarray._reconstruct",
    "numpy.ndarray",
    "numpy.dtype",
    "mmengine.logging.history_buffer.HistoryBuffer",
)
_STUBS: list[Any] = [
    *((OrderedDict, name) for name in _DICTIONARIES),  # torch's reader fills no other dictionary of ours
    *((type("Inert", (_Inert,), {}), name) for name in _FORGOTTEN),
]
"""Harmless names that the files of known programs mention; every other one is refused."""


@dataclass(frozen=True)
class ForeignFile:
    """What a file of another program holds."""

    path: Path
    tensors: dict[str, Tensor]
    settings: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """What it says beside: the official configuration, or a folder's config.json."""
    preprocessing: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """A folder's preprocessor_config.json."""


def read_foreign(path: Path) -> ForeignFile:
    """Read a checkpoint file, or a folder with config.json and its weights.

    Raises:
        DamagedFile: where it is cut or no file of weights.
        UnsafeFile: where it is a pickle that names something else than weights and plain settings.
        ValueError: where there is nothing, or no tensors in it.
    """
    if not path.exists():
        names = [each.name for each in path.parent.iterdir()] if path.parent.is_dir() else []
        raise ValueError(f"there is no file {str(path)!r}{nearest(path.name, names)}")
    folder = path if path.is_dir() else None
    tensors, settings = _read_folder(path) if folder else _read_file(path)
    beside: dict[str, Any] = {}
    if folder:
        settings = {**settings, **_json(folder / "config.json")}
        beside = _json(folder / "preprocessor_config.json")
    if not tensors:
        raise ValueError(f"{path} holds no weights (no tensors by name)")
    return ForeignFile(path, tensors, settings, beside)


def _read_folder(folder: Path) -> tuple[dict[str, Tensor], Mapping[str, Any]]:
    for name in ("model.safetensors", "pytorch_model.bin"):
        index = folder / f"{name}.index.json"
        if index.is_file():
            files = sorted(set(_json(index)["weight_map"].values()))
            parts = [_read_file(folder / Path(part).name)[0] for part in files]
            return {name: tensor for part in parts for name, tensor in part.items()}, {}
        if (folder / name).is_file():
            return _read_file(folder / name)
    raise ValueError(
        f"{folder} holds no weights; looked for model.safetensors and pytorch_model.bin (Hugging Face, timm), and found no "
        "run of simmim either"
    )


def _json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DamagedFile(f"{path} is not JSON: {error}") from error


def _read_file(path: Path) -> tuple[dict[str, Tensor], Mapping[str, Any]]:
    if path.stat().st_size == 0:
        raise DamagedFile(f"{path} is empty")
    with path.open("rb") as file:
        start = file.read(9)
    if start[8:9] == b"{" or path.suffix == ".safetensors":
        return _read_safetensors(path), {}
    return _unpacked(_read_torch(path, start))


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        with cast(Any, safe_open)(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
    except (SafetensorError, OSError) as error:
        raise DamagedFile(f"{path} cannot be read, it is cut or damaged: {error}") from error


def _read_torch(path: Path, start: bytes) -> Any:
    if not start.startswith((b"PK", b"\x80")):
        raise DamagedFile(f"{path} is no file of weights: it is neither torch's nor safetensors")
    try:
        with torch.serialization.safe_globals(_STUBS), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pickle's later protocols, of which is said below what can be done
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch's reader raises whatever the broken bytes lead it to
        said = str(error).strip() or type(error).__name__
        wanted = re.search(r"GLOBAL ([\w.]+)", said) or re.search(r"blocklisted module (\w+)", said)
        late = "Unsupported operand" in said
        name = wanted[1] if wanted else _stranger(path) if late else None
        if name:
            raise UnsafeFile(
                f"{path} is refused: its pickle asks for {name}, which weights do not need. Nothing of it was run. If "
                "you trust its author, ask for a file of plain weights (safetensors, or torch.save(model.state_dict()))"
            ) from error
        if late:
            raise DamagedFile(
                f"{path} is written in a protocol of pickle that torch's safe reader does not know; ask for safetensors, or "
                "for torch.save with its own protocol (2)"
            ) from error
        raise DamagedFile(
            f"{path} cannot be read, it is cut or damaged: {said.splitlines()[0].split('. ')[0][:120]}"
        ) from error


def _stranger(path: Path) -> str | None:
    """The first name in a pickle that weights do not need; its instructions are listed, none is carried out."""
    pickled = path.read_bytes()
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as file:
            pickled = next((file.read(name) for name in file.namelist() if name.endswith("data.pkl")), b"")
    words: list[str] = []
    with suppress(ValueError):  # a pickle that is cut: torch's reader has said so
        for code, argument, _ in chain.from_iterable(
            pickletools.genops(rows) for rows in [BytesIO(pickled)] * _IN_A_ROW
        ):
            name = " ".join(words[-2:]) if code.name == "STACK_GLOBAL" else argument if code.name == "GLOBAL" else None
            if name and not str(name).startswith(("torch", "collections OrderedDict")):
                return str(name).replace(" ", ".")
            if isinstance(argument, str):
                words.append(argument)
    return None


def _unpacked(value: Any) -> tuple[dict[str, Tensor], Mapping[str, Any]]:
    """The weights out of their container, and the configuration beside them."""
    if not isinstance(value, dict):
        return {}, {}
    tree = cast("dict[str, Any]", value)
    settings = tree.get("config")
    for word in _CONTAINERS:
        inner = tree.get(word)
        if isinstance(inner, dict) and any(isinstance(each, Tensor) for each in cast("dict[str, Any]", inner).values()):
            tree = cast("dict[str, Any]", inner)
            break
    tensors = {str(name).removeprefix("module."): each for name, each in tree.items() if isinstance(each, Tensor)}
    return tensors, cast("dict[str, Any]", settings) if isinstance(settings, dict) else {}
