import logging
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn, optim

from simmim.engine.checkpoint import (
    Checkpoint,
    checkpoint_paths,
    newest_checkpoint,
    pack,
    read_checkpoint,
    save_checkpoint,
    unpack,
    write_checkpoint,
)
from simmim.engine.folder import RunError
from simmim.engine.optimizer import OptimizerConfig, build_adamw, group_parameters, set_lr
from simmim.tensors import DamagedFile, write_tensors


def network(seed: int) -> tuple[nn.Module, optim.Optimizer]:
    torch.manual_seed(seed)
    module = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(3, 1))
    return module, build_adamw(group_parameters(module.named_parameters(), weight_decay=0.1), OptimizerConfig())


def steps(module: nn.Module, optimizer: optim.Optimizer, numbers: range) -> None:
    for number in numbers:
        rows = torch.randn(8, 4, generator=torch.Generator().manual_seed(number))
        set_lr(optimizer, lambda share: 1e-2 * share)
        optimizer.zero_grad()
        module(rows).square().mean().backward()
        optimizer.step()


def save(folder: Path, step: int, value: float = 0.0, keep: int = 10) -> None:
    save_checkpoint(folder, step, tensors={"model/w": torch.full((64,), value)}, state={"name": "x"}, keep=keep)


def damage(path: Path) -> None:
    whole = bytearray(path.read_bytes())
    whole[-1] ^= 1
    path.write_bytes(whole)


def numbers(folder: Path) -> list[int]:
    return [int(path.stem.removeprefix("step_")) for path in checkpoint_paths(folder)]


def _state(optimizer: optim.Optimizer) -> list[dict[str, Tensor]]:
    return [dict(optimizer.state[p]) for group in optimizer.param_groups for p in group["params"]]


def test_going_on_from_a_file_gives_the_very_weights_of_not_stopping(tmp_path: Path) -> None:
    whole, whole_memory = network(0)
    steps(whole, whole_memory, range(10))
    first, first_memory = network(0)
    steps(first, first_memory, range(4))
    write_checkpoint(tmp_path / "x.safetensors", pack(first, first_memory), {"step": 4})
    second, second_memory = network(1)
    steps(second, second_memory, range(50, 53))  # it had another memory of its own
    unpack(read_checkpoint(tmp_path / "x.safetensors"), second, second_memory)
    for ours, theirs in zip(_state(second_memory), _state(first_memory), strict=True):
        assert ours.keys() == theirs.keys() == {"step", "exp_avg", "exp_avg_sq"}
        assert all(torch.equal(ours[key], theirs[key]) and ours[key].dtype == theirs[key].dtype for key in ours)
    steps(second, second_memory, range(4, 10))
    assert second.state_dict().keys() == whole.state_dict().keys()
    assert all(torch.equal(tensor, whole.state_dict()[name]) for name, tensor in second.state_dict().items())


def test_a_network_that_did_no_step_yet_can_be_saved_and_taken_up() -> None:
    first, first_memory = network(0)
    second, second_memory = network(1)
    unpack(Checkpoint(pack(first, first_memory), {}), second, second_memory)
    assert all(torch.equal(tensor, first.state_dict()[name]) for name, tensor in second.state_dict().items())
    assert _state(second_memory) == [{}, {}, {}, {}, {}, {}]


def test_weights_and_memory_lie_under_their_names() -> None:
    module, optimizer = network(0)
    steps(module, optimizer, range(1))
    names = set(pack(module, optimizer))
    assert {f"model/{name}" for name in module.state_dict()} <= names
    assert {f"optimizer/{key}/0.weight" for key in ("step", "exp_avg", "exp_avg_sq")} <= names


def test_the_state_is_read_as_it_was_written(tmp_path: Path) -> None:
    state = {"loss": 0.1 + 0.2, "recipe": {"name": "blåbær", "list": [1, None, True]}, "step": 7}
    write_checkpoint(tmp_path / "x.safetensors", {"model/w": torch.ones(1)}, state)
    assert read_checkpoint(tmp_path / "x.safetensors").state == state


def test_only_the_newest_are_kept(tmp_path: Path) -> None:
    for step in (1, 9, 10, 100, 101):
        save(tmp_path, step, keep=3)
    assert numbers(tmp_path) == [101, 100, 10]
    newest = newest_checkpoint(tmp_path)
    assert newest is not None
    assert newest.state == {"name": "x", "step": 101}


def test_a_damaged_one_is_passed_over_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for step in (1, 2, 3):
        save(tmp_path, step, float(step))
    damage(checkpoint_paths(tmp_path)[0])
    with caplog.at_level(logging.WARNING):
        newest = newest_checkpoint(tmp_path)
    assert newest is not None
    assert (newest.state["step"], newest.tensors["model/w"][0].item()) == (2, 2.0)
    assert "step_00000003.safetensors is damaged" in caplog.text


@pytest.mark.parametrize("word", ["step", "name", "state", "x"])
def test_one_whose_words_are_damaged_is_passed_over_too(tmp_path: Path, word: str) -> None:
    save(tmp_path, 1)
    save(tmp_path, 2)
    path = checkpoint_paths(tmp_path)[0]
    whole = bytearray(path.read_bytes())
    position = whole.index(b'"' + word.encode()) if word == "state" else whole.index(b'"' + word.encode() + b"\\")
    whole[position + len(word)] ^= 1
    path.write_bytes(whole)
    newest = newest_checkpoint(tmp_path)
    assert newest is not None
    assert newest.state == {"name": "x", "step": 1}


def test_all_of_them_damaged_is_an_error(tmp_path: Path) -> None:
    for step in (1, 2):
        save(tmp_path, step)
        damage(checkpoint_paths(tmp_path)[0])
    with pytest.raises(RunError, match="none of the 2 checkpoints"):
        newest_checkpoint(tmp_path)


def test_none_at_all_is_no_error(tmp_path: Path) -> None:
    assert newest_checkpoint(tmp_path) is None
    assert newest_checkpoint(tmp_path / "absent") is None


@pytest.mark.parametrize("keep", [1, 2])
def test_a_damaged_newer_one_does_not_push_out_the_one_just_saved(tmp_path: Path, keep: int) -> None:
    """A run went on from step 20, because 30 was damaged, and was asked to stop at 25."""
    for step in (10, 20, 30):
        save(tmp_path, step, keep=3)
    damage(checkpoint_paths(tmp_path)[0])
    save(tmp_path, 25, keep=keep)
    newest = newest_checkpoint(tmp_path)
    assert newest is not None
    assert newest.state["step"] == 25


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_not_saved_and_nothing_is_lost(tmp_path: Path, value: float) -> None:
    save(tmp_path, 1, 1.0, keep=1)
    with pytest.raises(RunError, match=r"1 tensors are not finite after step 2 \(the first: model/w\)"):
        save(tmp_path, 2, value, keep=1)
    assert numbers(tmp_path) == [1]
    newest = newest_checkpoint(tmp_path)
    assert newest is not None
    assert newest.tensors["model/w"].eq(1).all()


def test_tensors_that_say_nothing_of_a_run_are_no_checkpoint(tmp_path: Path) -> None:
    write_tensors(tmp_path / "x.safetensors", {"w": torch.ones(1)}, {"architecture": "vit"})
    with pytest.raises(DamagedFile, match="is no checkpoint"):
        read_checkpoint(tmp_path / "x.safetensors")
