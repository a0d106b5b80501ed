"""How fast the masks of a batch are drawn, beside the obvious loop over images."""

import argparse
import json
import math
import statistics
import time
from collections.abc import Callable

import torch

from simmim.masking import BlockMasking, Masking, RandomMasking, SquareMasking

_SIZE, _PATCH, _TOKEN = (192, 192), 32, 4
_RATIO = 0.6
_STRATEGIES: dict[str, Masking] = {
    "random": RandomMasking(mask_patch=_PATCH, ratio=_RATIO),
    "square": SquareMasking(mask_patch=_PATCH, ratio=_RATIO),
    "block": BlockMasking(mask_patch=16, ratio=_RATIO),
}


def measure(*, batch: int = 2048, rounds: int = 7) -> dict[str, dict[str, float]]:
    """Masks of a second, all of a batch in one call and one image at a time; medians of interleaved rounds.

    The loop of `random` is the official recipe's: a permutation, ones, repeated to the tokens (microsoft/SimMIM,
    data/data_simmim.py). The other strategies have no official code; their loop is our own call with one image.
    """
    torch.set_num_threads(1)  # both alike: as in a training process whose other threads are busy
    found: dict[str, dict[str, float]] = {}
    for name, masking in _STRATEGIES.items():
        alone = _official if name == "random" else _one_by_one(masking)
        ours: list[float] = []
        loop: list[float] = []
        for _ in range(rounds):
            ours.append(_seconds(lambda m=masking: _draw(m, batch)))
            loop.append(_seconds(lambda draw=alone: [draw() for _ in range(batch // 8)]) * 8)
        ratios = [slow / fast for slow, fast in zip(loop, ours, strict=True)]
        found[name] = {
            "ours_per_second": batch / statistics.median(ours),
            "loop_per_second": batch / statistics.median(loop),
            "ratio": statistics.median(ratios),
        }
    return found


def _draw(masking: Masking, batch: int) -> torch.Tensor:
    return masking(batch, image_size=_SIZE, patch_size=_TOKEN, generator=_GENERATOR)


_GENERATOR = torch.Generator().manual_seed(0)


def _official() -> torch.Tensor:
    cells, repeat = _SIZE[0] // _PATCH, _PATCH // _TOKEN
    mask = torch.zeros(cells * cells, dtype=torch.bool)
    mask[torch.randperm(cells * cells, generator=_GENERATOR)[: math.ceil(cells * cells * _RATIO)]] = True
    return mask.view(cells, cells).repeat_interleave(repeat, dim=0).repeat_interleave(repeat, dim=1)


def _one_by_one(masking: Masking) -> Callable[[], torch.Tensor]:
    return lambda: _draw(masking, 1)


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=2048)
    print(json.dumps(measure(batch=parser.parse_args().batch), indent=2))


if __name__ == "__main__":
    main()
