"""Which library multiplies matrices on a CPU.

PyTorch asks MKL for products in float32, and on processors by AMD with AVX-512 that takes half of what they can do: 105 of 220
GFLOP/s a core where it was measured. oneDNN, which comes with PyTorch too, takes all of it. The results differ by rounding.
"""

import functools
import platform
import warnings
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor

Products: TypeAlias = Literal["auto", "torch", "onednn"]

_in_place: list[torch.library.Library] = []
_LEAST_WORK = 2**18  # multiplications below which a call costs more than it saves


def fast_products(choice: Products = "auto") -> AbstractContextManager[None]:
    """A context in which PyTorch multiplies matrices in float32 on the CPU by the library chosen, gradients included.

    Args:
        choice: "torch" for PyTorch's own choice, "onednn" for oneDNN, "auto" for the one that is known to be faster here.

    Raises:
        ValueError: where oneDNN is asked for and this PyTorch has it not.
    """
    if choice == "torch" or (choice == "auto" and not _mkl_falls_short()):
        return nullcontext()
    if not has_onednn():
        raise ValueError("machine.products=onednn, and this PyTorch has no oneDNN; use machine.products=auto or torch")
    return _onednn()


@functools.cache
def has_onednn() -> bool:
    """Whether this PyTorch can multiply with oneDNN, and lets us say so."""
    can = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    return can and hasattr(torch.library, "get_kernel")


@functools.cache
def _mkl_falls_short() -> bool:
    """Whether this is a processor on which MKL does not use the instructions there are."""
    wide = torch.backends.cpu.get_cpu_capability().startswith("AVX512")
    return wide and torch.backends.mkl.is_available() and has_onednn() and "AMD" in _processor()


def _processor() -> str:
    """Who made it, as Linux and Windows say."""
    said = Path("/proc/cpuinfo")
    return said.read_text(encoding="utf-8").split("\n\n")[0] if said.exists() else platform.processor()


@contextmanager
def _onednn() -> Generator[None]:
    """Takes the place of PyTorch's two kernels for a product of two matrices, and gives it back."""
    if _in_place:  # within another such context; PyTorch 2.11 takes no second one
        yield
        return
    kernels = torch.library.Library("aten", "IMPL")
    with warnings.catch_warnings():  # some versions of PyTorch say that a kernel is replaced, which is the point
        warnings.simplefilter("ignore", UserWarning)
        kernels.impl("mm", _kernel("aten::mm", _mm), "CPU", with_keyset=True)
        kernels.impl("addmm", _kernel("aten::addmm", _addmm), "CPU", with_keyset=True)
    _in_place.append(kernels)
    try:
        yield
    finally:
        _in_place.clear()
        kernels._destroy()  # pyright: ignore[reportPrivateUsage] - the public way waits for the garbage collector


def _kernel(name: str, ours: Callable[..., Tensor | None]) -> Callable[..., Tensor]:
    """Ours where it applies, PyTorch's own elsewhere."""
    own: Any = torch.library.get_kernel(name, "CPU")

    def kernel(keys: Any, *given: Any, **named: Any) -> Tensor:
        answer = ours(*given, **named)
        return own.call_boxed(keys, *given, **named) if answer is None else answer

    return kernel


def _mm(one: Tensor, other: Tensor) -> Tensor | None:
    """one times other."""
    return _product(one, other, None) if _pays(one, other) else None


def _addmm(bias: Tensor, one: Tensor, other: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor | None:
    """one times other, plus a bias in each row."""
    plain = beta == alpha == 1 and bias.shape == other.shape[1:] and bias.dtype == torch.float32
    return _product(one, other, bias) if plain and _pays(one, other) else None


def _pays(one: Tensor, other: Tensor) -> bool:
    return one.dtype == other.dtype == torch.float32 and one.numel() * other.shape[1] >= _LEAST_WORK


def _product(one: Tensor, other: Tensor, bias: Tensor | None) -> Tensor:
    """oneDNN wants its first factor in one piece, so the product may be had as the transposed one of the transposed."""
    if bias is None and not one.is_contiguous() and (other.t().is_contiguous() or other.numel() < one.numel()):
        return torch.ops.mkldnn._linear_pointwise(other.t(), one, None, "none", [], "").t()
    return torch.ops.mkldnn._linear_pointwise(one, other.t(), bias, "none", [], "")
