"""oneDNN's products beside PyTorch's own, forward and backward."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile
from torch.utils.checkpoint import checkpoint

from simmim.engine.products import fast_products


def _random(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).requires_grad_()


def _is_used(function, choice="onednn") -> bool:
    with profile(activities=[ProfilerActivity.CPU]) as seen, fast_products(choice):
        function()
    return any("mkldnn::_linear_pointwise" in event.name for event in seen.events())


def _exact(x: Tensor, weight: Tensor, bias: Tensor | None) -> list[Tensor]:
    """A linear layer and the gradients of its sum of squares, in float64 by NumPy."""
    rows, matrix = (each.detach().double().numpy() for each in (x.flatten(0, -2), weight))
    answer = rows @ matrix.T + (0 if bias is None else bias.detach().double().numpy())
    downhill = 2 * answer
    found = [answer, downhill @ matrix, downhill.T @ rows, *([] if bias is None else [downhill.sum(axis=0)])]
    return [torch.from_numpy(each) for each in found]


@pytest.mark.parametrize("shape", [(300, 96), (3, 50, 96), (2, 5, 40, 96)])
@pytest.mark.parametrize("width", [64, 200])
@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize("again", [True, False], ids=["checkpointed", "kept"])
def test_a_linear_layer_and_its_gradients(shape: tuple[int, ...], width: int, with_bias: bool, again: bool) -> None:
    bias = _random(width, seed=2) if with_bias else None
    given = [_random(*shape, seed=0), _random(width, shape[-1], seed=1), *([] if bias is None else [bias])]

    def work() -> list[Tensor]:
        answer = checkpoint(F.linear, *given, use_reentrant=False) if again else F.linear(*given)
        return [answer, *torch.autograd.grad(answer.square().sum(), given)]

    with fast_products("onednn"):
        found = work()
    assert _is_used(work)
    for one, exact in zip(found, _exact(given[0], given[1], bias), strict=True):
        scale = float(exact.abs().max())
        np.testing.assert_allclose(one.detach().reshape(exact.shape), exact, rtol=1e-5, atol=1e-6 * scale)


@pytest.mark.parametrize("turned", ["first", "second", "both", "neither"])
@pytest.mark.parametrize(("rows", "columns"), [(500, 40), (40, 500)])
def test_factors_in_any_order_of_memory(turned: str, rows: int, columns: int) -> None:
    one = _random(70, rows, seed=0).t() if turned in ("first", "both") else _random(rows, 70, seed=0)
    other = _random(columns, 70, seed=1).t() if turned in ("second", "both") else _random(70, columns, seed=1)
    with fast_products("onednn"):
        product = one @ other
    np.testing.assert_allclose(
        product.detach(), one.detach().double().numpy() @ other.detach().double().numpy(), rtol=1e-5, atol=1e-4
    )


def test_what_is_left_to_pytorch_stays_as_it_was_bit_for_bit() -> None:
    x, y, bias = _random(64, 256, seed=0), _random(256, 300, seed=1), _random(64, 300, seed=2)
    cases = {
        "float64": lambda: x.double() @ y.double(),
        "bfloat16": lambda: x.bfloat16() @ y.bfloat16(),
        "few": lambda: x[:8] @ y[:, :8],
        "scaled": lambda: torch.addmm(bias, x, y, beta=0.5, alpha=2.0),
        "a bias of its own for each": lambda: torch.addmm(bias, x, y),
        "integers": lambda: x.int() @ y.int(),
    }
    for name, case in cases.items():
        before = case()
        assert not _is_used(case), name
        with fast_products("onednn"):
            assert torch.equal(before, case()), name


def test_behind_the_context_all_is_as_before() -> None:
    layer, x = nn.Linear(256, 256), _random(64, 256, seed=0)
    before = layer(x)
    with pytest.raises(ZeroDivisionError), fast_products("onednn"):
        raise ZeroDivisionError
    assert torch.equal(before, layer(x))
    assert not _is_used(lambda: layer(x), "torch")


def test_a_context_within_another() -> None:
    layer, x = nn.Linear(256, 256), _random(64, 256, seed=0)
    before = layer(x)
    with fast_products("onednn"):
        outer = layer(x)
        with fast_products("onednn"):
            assert torch.equal(outer, layer(x))
        assert torch.equal(outer, layer(x))
    assert torch.equal(before, layer(x))
