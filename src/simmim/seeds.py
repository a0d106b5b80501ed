"""Randomness as a pure function: a stream of numbers from a seed and the words that say what it is for.

Nothing here has a state to save. The order of an epoch is `stream(seed, "order", epoch)`, the crop of a sample
`stream(seed, "crop", epoch, index)`, the masks of a step `seed_of(seed, "masks", step)`: a run that was cut continues with
the very numbers it would have drawn, whatever the number of workers and processes.
"""

import hashlib

import numpy as np


def seed_of(seed: int, *words: str | int) -> int:
    """A 63-bit seed that depends on every word and on their order."""
    text = "\x1f".join((str(seed), *map(str, words)))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


def stream(seed: int, *words: str | int) -> np.random.Generator:
    """A NumPy generator at the start of the stream named by the words (Philox, counter-based)."""
    return np.random.Generator(np.random.Philox(key=seed_of(seed, *words)))
