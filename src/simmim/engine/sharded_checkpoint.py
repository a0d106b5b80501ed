"""Checkpoints to which every process brings its part: a folder a step, written in the background, read by any number.

PyTorch's distributed checkpoint writes the tensors; `state.json` says the rest, and the digest of every file. The folder is
written beside its place and gets its name when every process is done.
"""

import concurrent.futures
import hashlib
import json
import os
import pickle
import shutil
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
import torch.distributed as dist
import torch.distributed.checkpoint
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.metadata import Metadata, StorageMeta, TensorStorageMetadata

from simmim.engine.checkpoint import STATE_FILE, Checkpoint, drop_stale, refuse_broken
from simmim.engine.distributed import Processes
from simmim.files import room_on_disk, write_text_atomically
from simmim.tensors import DamagedFile

_dcp: Any = torch.distributed.checkpoint  # it says too little of its types
_CHUNK = 2**24
_TABLES = ("torch.distributed.checkpoint.metadata", "torch.distributed.checkpoint.filesystem")
_FURTHER = {("torch", "Size"), ("torch.serialization", "_get_layout")}
_PATHS = ("PosixPath", "WindowsPath")


class ShardedSaver:
    """Saves the steps of a run whose weights are spread; at most one save is on its way."""

    def __init__(self, folder: Path, processes: Processes, *, keep: int) -> None:
        self._folder, self._processes, self._keep = folder, processes, keep
        # a group of its own: what is said in the background must not get between what the loop says
        self._group: Any = dist.new_group(backend="gloo")
        self._worker = concurrent.futures.ThreadPoolExecutor(1)
        self._pending: concurrent.futures.Future[None] | None = None

    def save(self, step: int, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
        """Copy all to the CPU, and write it while the run goes on; waits for the save before.

        Raises:
            RunError: where a weight is not finite; then nothing is written.
            simmim.files.DiskFull: where the save before found no room.
        """
        self.wait()
        self._processes.raise_first(refuse_broken(tensors, step))
        part = self._folder / f".step_{step:08d}.part"
        self._processes.from_main(lambda: _make_anew(part))
        writer = _dcp.FileSystemWriter(part, thread_count=1)
        written = _dcp.async_save(dict(tensors), storage_writer=writer, process_group=self._group)
        self._pending = self._worker.submit(self._complete, written, part, step, {**state, "step": step})

    def wait(self) -> None:
        """Wait until nothing is on its way; an error that any process met on the way is raised in all."""
        pending, self._pending = self._pending, None
        error = None
        if pending is not None:
            try:
                pending.result()
            except (ValueError, OSError, CheckpointException) as met:
                error = _said(met, self._folder)
        self._processes.raise_first(error)

    def _complete(
        self, written: "concurrent.futures.Future[Any]", part: Path, step: int, state: Mapping[str, Any]
    ) -> None:
        written.result()
        rank, main = self._processes.rank, self._processes.is_main
        own = {path.name: _digest(path) for path in sorted(part.glob(f"__{rank}_*"))}
        parts: list[Any] = [None] * self._processes.world
        dist.all_gather_object(parts, own, group=self._group)
        if main:
            files = {name: digest for each in parts for name, digest in each.items()}
            files[".metadata"] = _digest(part / ".metadata")
            write_text_atomically(part / STATE_FILE, _signed({"state": state, "files": files}))
            place = self._folder / f"step_{step:08d}"
            shutil.rmtree(place, ignore_errors=True)  # a damaged one, or the run would have gone on from it
            part.replace(place)
            _sync(self._folder)
            drop_stale(self._folder, place, keep=self._keep)


def _make_anew(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    with room_on_disk(folder.parent, folder.name):
        folder.mkdir()


def _said(error: BaseException, folder: Path) -> Exception:
    """An error of the disk in our words; torch wraps up what any process met."""
    failures: Any = getattr(error, "failures", {})
    inner = [each for pair in failures.values() for each in pair if isinstance(each, OSError)]
    try:
        with room_on_disk(folder, "a checkpoint"):
            raise inner[0] if inner else error
    except (ValueError, OSError) as said:
        return said
    except CheckpointException as said:
        return OSError(str(said))


def _sync(folder: Path) -> None:
    """See that the new name of a file in a folder outlives a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _digest(path: Path) -> str:
    digest = hashlib.blake2b(digest_size=16)
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _signed(said: Mapping[str, Any]) -> str:
    text = json.dumps(said, sort_keys=True)
    return json.dumps(
        {"digest": hashlib.blake2b(text.encode(), digest_size=16).hexdigest(), "said": said}, sort_keys=True
    )


# ------------------------------------------------------------------------------------------------------------------ reading


def read_state(folder: Path, *, rank: int = 0, world: int = 1) -> dict[str, Any]:
    """What a folder says beside its tensors, once every file in it is what was written.

    Args:
        folder: of one step.
        rank: of `world` readers, each of which looks at its share of the files.
        world: how many readers there are.

    Raises:
        DamagedFile: where a file is not.
    """
    try:
        tree = json.loads((folder / STATE_FILE).read_text(encoding="utf-8"))
        if json.loads(_signed(tree["said"]))["digest"] != tree["digest"]:
            raise DamagedFile(f"{folder} is damaged: {STATE_FILE} is not what was saved")
        files = tree["said"]["files"]
        for name in sorted(files)[rank::world]:
            if _digest(folder / name) != files[name]:
                raise DamagedFile(f"{folder} is damaged: {name} is not what was saved")
    except (OSError, json.JSONDecodeError, KeyError, TypeError) as error:
        raise DamagedFile(f"{folder} cannot be read: {error}") from error
    return tree["said"]["state"]


def read_whole(folder: Path) -> Checkpoint:
    """A checkpoint of many processes as one process sees it; asks nobody.

    Raises:
        DamagedFile: where it is not what was saved.
    """
    state = read_state(folder)
    tensors = {
        name: torch.empty(about.size, dtype=about.properties.dtype) for name, about in tensors_in(folder).items()
    }
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*assuming the intent is to load in a single process")  # it is
        _dcp.load(tensors, storage_reader=_Reader(folder), no_dist=True)
    return Checkpoint(tensors, state)


def tensors_in(folder: Path) -> dict[str, TensorStorageMetadata]:
    """Size and type of the tensors of a folder, by name."""
    found = _Reader(folder).read_metadata().state_dict_metadata
    return {name: about for name, about in found.items() if isinstance(about, TensorStorageMetadata)}


def fill(tensors: dict[str, Tensor], folder: Path) -> None:
    """Read into tensors that are spread over the processes; all of them must ask."""
    _dcp.load(tensors, storage_reader=_Reader(folder))


class _Reader(FileSystemReader):
    """torch's reader, that lets nothing but tables come out of the table of contents."""

    def read_metadata(self, *arguments: Any, **more: Any) -> Metadata:
        with (Path(cast(Any, self).path) / ".metadata").open("rb") as file:
            table = _Tables(file).load()
        if getattr(table, "storage_meta", None) is None:
            table.storage_meta = StorageMeta()
        table.storage_meta.load_id = self.load_id
        return table


class _Tables(pickle.Unpickler):
    """The table of contents is a pickle: sizes, types and places of tensors, and nothing else shall come out of it."""

    def find_class(self, module: str, name: str) -> Any:
        if "." not in name and module.split(".")[0] in ("torch", "pathlib"):
            found = super().find_class(module, name)
            own = module in _TABLES and isinstance(found, type) and found.__module__ == module
            path = module.split(".")[0] == "pathlib" and name in _PATHS
            number = module == "torch" and isinstance(found, torch.dtype)
            if own or path or number or (module, name) in _FURTHER:
                return found
        raise DamagedFile(f"the table of contents of a checkpoint names {module}.{name}, which does not belong there")
