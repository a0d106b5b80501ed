"""How fast this machine multiplies matrices of the sizes that the networks have: the limit of every training step."""

import time

import torch

from simmim.engine.products import fast_products, has_onednn

_SIZES = ((2304, 512, 2048), (2304, 2048, 512), (788, 768, 3072), (788, 3072, 768))  # rows, in, out of a layer


def products_per_second(*, device: str = "cpu", threads: int = 1, repeats: int = 8) -> float:
    """FLOP/s of the best library for it, over a layer's product and the two of its gradient, each at its best repeat.

    float32 on a CPU, bfloat16 and 64 times as many rows on a GPU.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        libraries = ("torch", "onednn") if device == "cpu" and has_onednn() else ("torch",)
        return max(_rate(library, device=device, repeats=repeats) for library in libraries)
    finally:
        torch.set_num_threads(before)


def _rate(library: str, *, device: str, repeats: int) -> float:
    work = seconds = 0.0
    kind = torch.float32 if device == "cpu" else torch.bfloat16
    for rows, inputs, outputs in _SIZES:
        rows *= 1 if device == "cpu" else 64
        x, weight, gradient = (
            torch.randn(shape, device=device, dtype=kind)
            for shape in ((rows, inputs), (outputs, inputs), (rows, outputs))
        )
        with fast_products("onednn" if library == "onednn" else "torch"):
            for product in (lambda: x @ weight.t(), lambda: gradient @ weight, lambda: gradient.t() @ x):  # noqa: B023
                seconds += min(_time(product, device) for _ in range(repeats))
                work += 2.0 * rows * inputs * outputs
    return work / seconds


def _time(product, device: str) -> float:
    if device != "cpu":
        torch.cuda.synchronize()
    begin = time.perf_counter()
    product()
    if device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter() - begin
