from typing import Any

import pytest
import torch
from torch import nn

from simmim.engine.distributed import Processes, start_processes
from simmim.engine.precision import Precision

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("name", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)]
)
def test_matrix_products_run_in_the_format_and_weights_stay_in_float32(name: Any, dtype: torch.dtype) -> None:
    precision, layer = Precision(name, CPU), nn.Linear(4, 3)
    with precision.autocast():
        said = layer(torch.randn(2, 4))
    assert said.dtype == dtype
    precision.backward(said.float().mean())
    assert layer.weight.dtype == torch.float32
    assert layer.weight.grad is not None
    assert layer.weight.grad.dtype == torch.float32


def test_a_half_precision_loss_is_scaled_and_the_scale_taken_back() -> None:
    precision, layer = Precision("fp16", CPU), nn.Linear(4, 3)
    optimizer = torch.optim.SGD(layer.parameters(), lr=1.0)
    rows = torch.randn(2, 4)
    precision.backward(layer(rows).mean())
    assert layer.weight.grad is not None
    assert layer.weight.grad.abs().max() > 100
    precision.scaler.unscale_(optimizer)
    assert torch.allclose(layer.weight.grad, rows.mean(dim=0).expand(3, 4) / 3, rtol=1e-5)


@pytest.mark.parametrize("name", ["fp32", "bf16"])
def test_without_a_scale_an_overflow_is_the_networks_own(name: Any) -> None:
    assert Precision(name, CPU).at_its_limit


def test_with_a_scale_an_overflow_is_the_networks_own_when_the_scale_is_used_up() -> None:
    precision, weight = Precision("fp16", CPU), nn.Parameter(torch.ones(1))
    optimizer = torch.optim.SGD([weight], lr=1.0)
    overflows = 0
    while not precision.at_its_limit and overflows < 100:
        optimizer.zero_grad()
        precision.backward((weight * float("inf")).sum())
        precision.scaler.unscale_(optimizer)
        precision.scaler.step(optimizer)
        precision.scaler.update()
        overflows += 1
    assert overflows == 17  # 2^16, halved until it is below 1
    assert weight.item() == 1.0


def test_one_process_is_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    alone = start_processes("cpu")
    assert (alone.device, alone.rank, alone.world, alone.is_main) == (CPU, 0, 1, True)
    assert alone.sum(1.0, 2.0) == [1.0, 2.0]
    assert alone.largest(3.0) == [3.0]
    assert alone.gather("x") == ["x"]
    assert alone.from_main(lambda: "made") == "made"
    module = nn.Linear(1, 1)
    assert alone.wrap(module) is module
    alone.close()


def test_an_error_of_the_main_process_is_raised() -> None:
    def make() -> None:
        raise ValueError("no such folder")

    with pytest.raises(ValueError, match="no such folder"):
        Processes(CPU).from_main(make)


def test_a_gpu_that_is_not_there_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="PyTorch sees no GPU here"):
        start_processes("cuda")
