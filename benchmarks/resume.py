"""How long a run that was cut takes until its next step, beside how long a new one takes until its first."""

import argparse
import json
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

_WORDS = (
    "tiny", "data.image_size=32 px", "encoder.patch_size=4 px", "masking.mask_patch=8 px", "batch=16 images",
    "schedule.duration=100000 steps", "schedule.warmup=10 steps", "machine.workers=0",
    "output.log_every=1 steps", "output.save_every=100000 steps", "output.evaluate_every=100000 steps",
)  # fmt: skip
_POLL_SECONDS = 0.005


def measure(*, images: int = 2000, steps: int = 20, rounds: int = 3) -> dict[str, float]:
    """Start a small run, interrupt it after so many steps, and go on with it.

    Returns:
        Seconds from the command to the first step it reports, of a new run and of one that goes on (medians of
        interleaved rounds), and `ratio`, the second to the first: 1 where going on costs nothing.
    """
    fresh: list[float] = []
    resumed: list[float] = []
    with tempfile.TemporaryDirectory() as place:
        root = _make(Path(place) / "images", images)
        for number in range(rounds + 1):
            out = Path(place) / f"run{number}"
            times = _seconds_to_next_step(root, out, until=steps), _seconds_to_next_step(root, out, until=steps + 1)
            if number:  # the first round warms up
                fresh.append(times[0])
                resumed.append(times[1])
    return {
        "fresh_seconds": statistics.median(fresh),
        "resumed_seconds": statistics.median(resumed),
        "ratio": statistics.median(again / first for again, first in zip(resumed, fresh, strict=True)),
    }


def _seconds_to_next_step(root: Path, out: Path, *, until: int) -> float:
    """Start or go on, and interrupt behind a step; a run that is interrupted saves before it ends."""
    metrics, before = out / "metrics.jsonl", _lines(out / "metrics.jsonl")
    command = [sys.executable, "-m", "simmim", "pretrain", *_WORDS, "--data", str(root), "--out", str(out), "--resume"]
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    while _lines(metrics) == before:
        if process.poll() is not None:
            raise RuntimeError(process.communicate()[1])
        time.sleep(_POLL_SECONDS)
    seconds = time.perf_counter() - start
    while _lines(metrics) < until and process.poll() is None:
        time.sleep(_POLL_SECONDS)
    process.send_signal(signal.SIGINT)
    process.communicate()
    return seconds


def _lines(metrics: Path) -> int:
    return metrics.read_bytes().count(b"\n") if metrics.exists() else 0


def _make(root: Path, images: int) -> Path:
    root.mkdir()
    generator = np.random.default_rng(0)
    for number in range(images):
        Image.fromarray(generator.integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(root / f"{number:05d}.jpg")
    return root


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    print(json.dumps(measure(rounds=parser.parse_args().rounds), indent=2))


if __name__ == "__main__":
    main()
