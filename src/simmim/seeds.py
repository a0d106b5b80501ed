"""Randomness as a pure function: a stream of numbers from a seed and the words that say what it is for.

Nothing here has a state to save. The order of an epoch is `stream(seed, "order", epoch)`, the crop of a sample
`stream(seed, "crop", epoch, index)`, the masks of a step `seed_of(seed, "masks", step)`: a run that was cut continues with
the very numbers it would have drawn, whatever the number of workers and processes.
"""

import hashlib
from typing import Any

import numpy as np
from numpy.random.bit_generator import ISeedSequence
from numpy.typing import NDArray


def seed_of(seed: int, *words: str | int) -> int:
    """A 63-bit seed that depends on every word and on their order."""
    text = "\x1f".join((str(seed), *map(str, words)))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


def stream(seed: int, *words: str | int) -> np.random.Generator:
    """A NumPy generator at the start of the stream named by the words (Philox, counter-based)."""
    key = _Key(seed_of(seed, *words))
    return np.random.Generator(np.random.Philox(key))  # pyright: ignore[reportArgumentType] - NumPy's stub is too narrow


class _Key(ISeedSequence):
    """What Philox(key=...) is, without the entropy of the machine that it asks for first and does not use."""

    def __init__(self, key: int) -> None:
        self._key = key

    def generate_state(self, n_words: int, dtype: Any = np.uint32) -> NDArray[Any]:
        """The key of Philox: two words of 64 bits, the second of them 0."""
        state = np.zeros(n_words, dtype)
        state[0] = self._key
        return state
