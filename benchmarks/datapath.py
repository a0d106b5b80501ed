"""Read, decode, crop to 192 px, mirror, normalise: ours against the official recipe (Pillow, torchvision)."""

import argparse
import gc
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast

import numpy as np
import simplejpeg
import torch
from PIL import Image
from torch import Tensor
from torchvision import transforms

from simmim.data import RandomCrop, Samples, Statistics, collate, jpeg, open_source

SIZE = 192
BATCH = 16
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

Contestant = Callable[[Sequence[int]], Tensor]


def measure(*, rounds: int = 10, small: int = 96, large: int = 16) -> dict[str, dict[str, float]]:
    """Images a second on one thread, medians over batches that the contestants read in turn.

    `ratio` is ours to the official recipe, to normalised images on the CPU; `worker_ratio` is without our normalising, which
    is left to the device where it is a GPU, while a worker of the official recipe does it; `pillow_ratio` is `ratio` without
    simplejpeg, `decoding` simplejpeg alone.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    gc.freeze()  # as in a worker of a loader
    try:
        return {
            "500x375": _contest((375, 500), images=small, rounds=rounds),
            "3000x2000": _contest((2000, 3000), images=large, rounds=rounds),
        }
    finally:
        gc.unfreeze()
        torch.set_num_threads(threads)


def _contest(size: tuple[int, int], *, images: int, rounds: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as place:
        for number in range(images):
            _photo(size, seed=number).save(f"{place}/{number:03d}.jpg", quality=90)
        ours = _ours(Path(place))
        contestants = {
            "ours": ours,
            "official": _official(Path(place)),
            "ours_in_worker": _in_worker(Path(place)),
            "ours_pillow": _without_simplejpeg(ours),
            "decoding": _decoding(Path(place)),
        }
        seconds: dict[str, list[float]] = {name: [] for name in contestants}
        for round_ in range(rounds + 1):
            for first in range(0, images, BATCH):
                for name, path in contestants.items():
                    start = time.process_time()
                    path(range(first, min(first + BATCH, images)))
                    if round_:  # the first round warms up
                        seconds[name].append(time.process_time() - start)
    speed = {name: BATCH / statistics.median(times) for name, times in seconds.items()}
    ratios = {
        "ratio": speed["ours"] / speed["official"],
        "worker_ratio": speed["ours_in_worker"] / speed["official"],
        "pillow_ratio": speed["ours_pillow"] / speed["official"],
    }
    return speed | ratios


def _ours(root: Path) -> Contestant:
    in_worker, statistics_ = _in_worker(root), Statistics(3, MEAN, STD)
    return lambda indices: statistics_.normalise(in_worker(indices))


def _in_worker(root: Path) -> Contestant:
    samples = Samples(open_source(root), view=RandomCrop(), size=(SIZE, SIZE), channels=3, seed=0)
    return lambda indices: collate([samples[0, index] for index in indices]).images


def _without_simplejpeg(contestant: Contestant) -> Contestant:
    def run(indices: Sequence[int]) -> Tensor:
        installed, jpeg.simplejpeg = jpeg.simplejpeg, None
        try:
            return contestant(indices)
        finally:
            jpeg.simplejpeg = installed

    return run


def _decoding(root: Path) -> Contestant:
    files = sorted(root.iterdir())

    def run(indices: Sequence[int]) -> Tensor:
        for index in indices:
            simplejpeg.decode_jpeg(files[index].read_bytes(), "RGB")
        return torch.empty(0)

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
    parser.add_argument("--rounds", type=int, default=10)
    print(json.dumps(measure(rounds=parser.parse_args().rounds), indent=2))


if __name__ == "__main__":
    main()
