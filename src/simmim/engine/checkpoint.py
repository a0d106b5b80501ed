"""Checkpoints: one file of tensors a step, written as a whole or not at all, checked before it is believed."""

import json
import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor, nn, optim

from simmim.engine.folder import RunError
from simmim.engine.sharding import own_part
from simmim.tensors import DamagedFile, read_tensors, write_tensors

_log = logging.getLogger(__name__)
STATE_FILE = "state.json"
"""In the folder of a checkpoint that many processes wrote: all but the tensors."""


class Checkpoint(NamedTuple):
    """What a checkpoint holds."""

    tensors: dict[str, Tensor]
    """Weights as model/NAME, and the optimizer's memory of each as optimizer/KEY/NAME."""
    state: dict[str, Any]
    """Counters of the run, and what the task says of it."""

    def below(self, prefix: str) -> dict[str, Tensor]:
        """The tensors whose names start with a word, without it."""
        return {name[len(prefix) + 1 :]: t for name, t in self.tensors.items() if name.startswith(f"{prefix}/")}


def checkpoint_paths(folder: Path) -> list[Path]:
    """The checkpoints of a folder, newest first: files, or folders where many processes wrote them."""
    return sorted(folder.glob("step_*"), key=lambda path: (path.stem, path.name), reverse=True)


def write_checkpoint(path: Path, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
    """Write one file."""
    write_tensors(path, tensors, {"state": json.dumps(state, sort_keys=True)})


def read_checkpoint(path: Path) -> Checkpoint:
    """Read the file of one process, or the folder of many.

    Raises:
        DamagedFile: where it is not what was saved, or no checkpoint.
    """
    if path.is_dir():
        from simmim.engine.sharded_checkpoint import read_whole  # torch's part of it takes a second to import

        return read_whole(path)
    tensors, words = read_tensors(path)
    if "state" not in words:
        raise DamagedFile(f"{path} is no checkpoint: it says nothing of the state of a run")
    return Checkpoint(tensors, json.loads(words["state"]))


def save_checkpoint(
    folder: Path, step: int, *, tensors: Mapping[str, Tensor], state: Mapping[str, Any], keep: int
) -> None:
    """Write the checkpoint of a step, then drop all but the newest `keep`.

    Raises:
        RunError: where a weight is not finite; then nothing is written, and the last finite checkpoint stays the newest.
        simmim.files.DiskFull: where there is no room; the checkpoints before are whole.
    """
    broken = refuse_broken(tensors, step)
    if broken is not None:
        raise broken
    path = folder / f"step_{step:08d}.safetensors"
    write_checkpoint(path, tensors, {**state, "step": step})
    drop_stale(folder, path, keep=keep)


def refuse_broken(tensors: Mapping[str, Tensor], step: int) -> RunError | None:
    """Why this process's part of the tensors is not saved, if any number in it is not finite."""
    own = {name: own_part(tensor) for name, tensor in tensors.items()}
    broken = [name for name, tensor in own.items() if tensor.is_floating_point() and not tensor.isfinite().all()]
    if not broken:
        return None
    return RunError(
        f"{len(broken)} tensors are not finite after step {step} (the first: {broken[0]}), so nothing was saved; "
        "the newest checkpoint is from before. Try a smaller optimizer.lr or a longer schedule.warmup"
    )


def drop_stale(folder: Path, newest: Path, *, keep: int) -> None:
    """Drop all checkpoints but the one just written and those before it, `keep` in all."""
    every = checkpoint_paths(folder)
    at = every.index(newest)
    for stale in (*every[:at], *every[at + keep :]):  # a later one was damaged, or the run would have gone on from it
        if stale.is_dir():
            shutil.rmtree(stale)
        else:
            stale.unlink()


def newest_checkpoint(folder: Path) -> Checkpoint | None:
    """The newest checkpoint that is whole; a damaged one is passed over with a warning. None where there is none.

    Raises:
        RunError: where there are checkpoints and every one is damaged.
    """
    paths = checkpoint_paths(folder)
    for path in paths:
        try:
            return read_checkpoint(path)
        except DamagedFile as error:
            _log.warning("%s; the one before it is taken", error)
    if paths:
        raise none_can_be_read(folder, len(paths))
    return None


def none_can_be_read(folder: Path, count: int) -> RunError:
    """The error of a folder whose checkpoints are all damaged."""
    return RunError(f"none of the {count} checkpoints in {folder} can be read; start again in another folder")


def pack(module: nn.Module, optimizer: optim.Optimizer) -> dict[str, Tensor]:
    """Weights and the optimizer's memory as tensors by name."""
    tensors = {f"model/{name}": tensor for name, tensor in module.state_dict().items()}
    for group in optimizer.param_groups:
        for name, parameter in zip(group["names"], group["params"], strict=True):
            for key, value in optimizer.state.get(parameter, {}).items():
                tensors[f"optimizer/{key}/{name}"] = value
    return tensors


def unpack(checkpoint: Checkpoint, module: nn.Module, optimizer: optim.Optimizer) -> None:
    """Put the weights and the optimizer's memory back."""
    module.load_state_dict(checkpoint.below("model"))
    names = [name for group in optimizer.param_groups for name in group["names"]]
    memory: dict[str, dict[str, Tensor]] = {name: {} for name in names}
    for path, tensor in checkpoint.below("optimizer").items():
        key, _, name = path.partition("/")
        memory[name][key] = tensor
    optimizer.load_state_dict(
        {
            "state": {index: memory[name] for index, name in enumerate(names) if memory[name]},
            "param_groups": optimizer.state_dict()["param_groups"],
        }
    )
