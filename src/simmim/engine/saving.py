"""How a run saves itself and finds itself again: one file by the main process, or a folder to which all bring their part."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn, optim

from simmim.engine.checkpoint import (
    Checkpoint,
    checkpoint_paths,
    newest_checkpoint,
    none_can_be_read,
    pack,
    read_checkpoint,
    save_checkpoint,
    unpack,
)
from simmim.engine.distributed import Processes
from simmim.engine.sharding import spread_like
from simmim.tensors import DamagedFile

_log = logging.getLogger(__name__)


class Saver(Protocol):
    """Keeps module and optimizer in a folder."""

    def save(self, step: int, state: Mapping[str, Any]) -> None:
        """Save a step; what is not finite is refused. Every process must ask."""
        ...

    def wait(self) -> None:
        """Wait until what was saved lies there."""
        ...

    def restore(self) -> dict[str, Any] | None:
        """Put back the newest step that is whole, and return its state; None where there is none."""
        ...


class OneFile:
    """The main process writes all, at once."""

    def __init__(
        self, folder: Path, module: nn.Module, optimizer: optim.Optimizer, processes: Processes, *, keep: int
    ) -> None:
        self._folder, self._module, self._optimizer = folder, module, optimizer
        self._processes, self._keep = processes, keep

    def save(self, step: int, state: Mapping[str, Any]) -> None:
        """Write one file."""
        self._processes.from_main(
            lambda: save_checkpoint(
                self._folder, step, tensors=pack(self._module, self._optimizer), state=state, keep=self._keep
            )
        )

    def wait(self) -> None:
        """Nothing is on its way."""

    def restore(self) -> dict[str, Any] | None:
        """Read what was saved by one process or by many."""
        checkpoint = newest_checkpoint(self._folder)
        if checkpoint is None:
            return None
        unpack(checkpoint, self._module, self._optimizer)
        return checkpoint.state


class InParts:
    """Every process writes its part, in the background."""

    def __init__(
        self, folder: Path, module: nn.Module, optimizer: optim.Optimizer, processes: Processes, *, keep: int
    ) -> None:
        from simmim.engine.sharded_checkpoint import ShardedSaver

        self._folder, self._module, self._optimizer, self._processes = folder, module, optimizer, processes
        self._saver = ShardedSaver(folder, processes, keep=keep)

    def save(self, step: int, state: Mapping[str, Any]) -> None:
        """Begin to write a folder."""
        self._saver.save(step, pack(self._module, self._optimizer), state)

    def wait(self) -> None:
        """Wait until the folder has its name."""
        self._saver.wait()

    def restore(self) -> dict[str, Any] | None:
        """Read what was saved by one process or by any number; every process takes its part."""
        paths = checkpoint_paths(self._folder)
        for path in paths:
            try:
                checkpoint = self._read_folder(path) if path.is_dir() else self._read_file(path)
            except DamagedFile as error:
                if self._processes.is_main:
                    _log.warning("%s; the one before it is taken", error)
                continue
            unpack(checkpoint, self._module, self._optimizer)
            return checkpoint.state
        if paths:
            raise none_can_be_read(self._folder, len(paths))
        return None

    def _patterns(self) -> dict[str, Tensor]:
        """How the weights are spread, by the end of their names; the optimizer's memory of each is spread alike."""
        return dict(self._module.state_dict())

    def _read_file(self, path: Path) -> Checkpoint:
        whole, patterns = read_checkpoint(path), self._patterns()
        tensors = {name: spread_like(tensor, patterns[_of(name)]) for name, tensor in whole.tensors.items()}
        return Checkpoint(tensors, whole.state)

    def _read_folder(self, path: Path) -> Checkpoint:
        from simmim.engine.sharded_checkpoint import fill, read_state, tensors_in

        state, error = dict[str, Any](), None
        try:
            state = read_state(path, rank=self._processes.rank, world=self._processes.world)
        except DamagedFile as met:
            error = met
        found = [each for each in self._processes.gather(error) if each is not None]
        if found:
            raise found[0]
        tensors, patterns = dict[str, Tensor](), self._patterns()
        for name, about in tensors_in(path).items():
            like = patterns[_of(name)]
            same = like.shape == about.size
            tensors[name] = torch.empty_like(like) if same else torch.empty(about.size, dtype=about.properties.dtype)
        fill(tensors, path)
        return Checkpoint(tensors, state)


def _of(name: str) -> str:
    """The weight that a tensor of a checkpoint belongs to: model/WEIGHT or optimizer/KEY/WEIGHT."""
    kind, _, rest = name.partition("/")
    return rest if kind == "model" else rest.partition("/")[2]
