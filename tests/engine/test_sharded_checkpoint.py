"""Folders that many processes wrote, as one process reads them; how they are written, whole runs show."""

import hashlib
import json
import os
import pickle
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint as dcp

from simmim.engine.checkpoint import newest_checkpoint, read_checkpoint
from simmim.tensors import DamagedFile


def _digest(contents: bytes) -> str:
    return hashlib.blake2b(contents, digest_size=16).hexdigest()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two steps, written by torch itself."""
    for step in (1, 2):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch says that it takes itself to be alone
            tensors = {"model/w": torch.full((3, 2), float(step)), "optimizer/step/w": torch.tensor(float(step))}
            dcp.save(tensors, checkpoint_id=tmp_path / f"step_{step:08d}", no_dist=True)
        _sign(tmp_path / f"step_{step:08d}", step)
    return tmp_path


def _sign(place: Path, step: int) -> None:
    files = {path.name: _digest(path.read_bytes()) for path in place.iterdir() if path.name != "state.json"}
    said = {"files": files, "state": {"step": step}}
    digest = _digest(json.dumps(said, sort_keys=True).encode())
    (place / "state.json").write_text(json.dumps({"digest": digest, "said": said}))


def test_a_folder_is_read_as_what_was_saved(folder: Path) -> None:
    newest = newest_checkpoint(folder)
    assert newest is not None
    assert newest.state == {"step": 2}
    assert torch.equal(newest.tensors["model/w"], torch.full((3, 2), 2.0))
    assert newest.tensors["optimizer/step/w"].item() == 2.0


@pytest.mark.parametrize("name", [".metadata", "__0_0.distcp", "state.json"])
@pytest.mark.parametrize("harm", ["a bit", "gone"])
def test_a_damaged_part_is_found_and_the_step_before_is_taken(folder: Path, name: str, harm: str) -> None:
    path = folder / "step_00000002" / name
    contents = bytearray(path.read_bytes())
    path.unlink()
    if harm == "a bit":
        contents[len(contents) // 2] ^= 1
        path.write_bytes(contents)
    with pytest.raises(DamagedFile):
        read_checkpoint(folder / "step_00000002")
    newest = newest_checkpoint(folder)
    assert newest is not None
    assert newest.state == {"step": 1}


class _Evil:
    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.file),)


def test_a_table_of_contents_runs_no_code_of_others(folder: Path) -> None:
    place = folder / "step_00000002"
    (place / ".metadata").write_bytes(pickle.dumps(_Evil(folder / "harm")))
    _sign(place, 2)
    with pytest.raises(DamagedFile, match="mkdir, which does not belong there"):
        read_checkpoint(place)
    assert not (folder / "harm").exists()
