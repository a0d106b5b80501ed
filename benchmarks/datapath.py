"""Read, decode, crop to 192 px, mirror, normalise: ours against the official recipe (Pillow, torchvision)."""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision import transforms

from simmim.data import RandomCrop, Samples, collate, open_source

SIZE = 192
BATCH = 16
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

Contestant = Callable[[Sequence[int]], Tensor]


def measure(*, rounds: int = 5, small: int = 100, large: int = 16) -> dict[str, dict[str, float]]:
    """Images a second on one thread, medians of interleaved rounds; `ratio` is ours to the official recipe."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return {
            "500x375": _contest((375, 500), images=small, rounds=rounds),
            "3000x2000": _contest((2000, 3000), images=large, rounds=rounds),
        }
    finally:
        torch.set_num_threads(threads)


def _contest(size: tuple[int, int], *, images: int, rounds: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as place:
        for number in range(images):
            _photo(size, seed=number).save(f"{place}/{number:03d}.jpg", quality=90)
        contestants = {"ours": _ours(Path(place)), "official": _official(Path(place))}
        seconds: dict[str, list[float]] = {name: [] for name in contestants}
        for round_ in range(rounds + 1):
            for name, path in contestants.items():
                start = time.perf_counter()
                for first in range(0, images, BATCH):
                    path(range(first, min(first + BATCH, images)))
                if round_:  # the first round warms up
                    seconds[name].append(time.perf_counter() - start)
    speed = {name: images / statistics.median(times) for name, times in seconds.items()}
    return speed | {"ratio": speed["ours"] / speed["official"]}


def _ours(root: Path) -> Contestant:
    samples = Samples(open_source(root), view=RandomCrop(), size=(SIZE, SIZE), channels=3, seed=0)
    mean, std = (torch.tensor(values).view(3, 1, 1) * 255 for values in (MEAN, STD))

    def run(indices: Sequence[int]) -> Tensor:
        batch = collate([samples[0, index] for index in indices])
        return batch.images.float().sub_(mean).div_(std)  # in a run the device does this

    return run


def _official(root: Path) -> Contestant:
    files = sorted(root.iterdir())
    transform = transforms.Compose(
        [
            transforms.RandomResizedCrop(SIZE, scale=(0.67, 1.0), ratio=(3 / 4, 4 / 3)),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, STD),
        ]
    )

    def load(file: Path) -> Tensor:
        with file.open("rb") as opened:
            return cast(Tensor, transform(Image.open(opened).convert("RGB")))

    return lambda indices: torch.stack([load(files[index]) for index in indices])


def _photo(size: tuple[int, int], *, seed: int) -> Image.Image:
    """Smooth colour under fine grain, so that a file is about as large as that of a photograph."""
    generator = np.random.default_rng(seed)
    height, width = size
    picture = np.zeros((height, width, 3), np.float32)
    for cells, strength in ((6, 90), (40, 40), (160, 20)):
        noise = generator.normal(128, strength, (cells, cells, 3)).clip(0, 255).astype(np.uint8)
        picture += (
            np.asarray(Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC), np.float32) - 128
        )
    picture += generator.normal(128, 6, (height, width, 1))
    return Image.fromarray(picture.clip(0, 255).astype(np.uint8))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    print(json.dumps(measure(rounds=parser.parse_args().rounds), indent=2))


if __name__ == "__main__":
    main()
