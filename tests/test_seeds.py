import hashlib

import numpy as np
import pytest

from simmim.seeds import seed_of, stream

GOLDEN = [
    ((0, "order", 3), 8682038268397892103, [6, 7, 0, 3, 5, 4, 1, 2]),
    ((7, "crop", 1, 2), 2622400206753926724, [0, 6, 1, 3, 2, 7, 5, 4]),
    ((0, "masks", -1), 8735091242265872861, [7, 4, 5, 1, 0, 3, 6, 2]),
]


@pytest.mark.parametrize(("words", "seed", "order"), GOLDEN)
def test_a_stream_gives_the_same_numbers_for_ever(words: tuple[int, str, int], seed: int, order: list[int]) -> None:
    first, *rest = words
    assert seed_of(first, *rest) == seed
    assert stream(first, *rest).permutation(8).tolist() == order


def test_a_stream_is_that_of_philox_under_the_key() -> None:
    for number in range(50):
        published = np.random.Generator(np.random.Philox(key=seed_of(number, "crop")))
        assert str(stream(number, "crop").bit_generator.state) == str(published.bit_generator.state)
        assert np.array_equal(stream(number, "crop").normal(size=9), published.normal(size=9))


def test_a_seed_is_the_published_hash_of_its_words() -> None:
    hashed = hashlib.blake2b(b"5\x1fview\x1f12", digest_size=8).digest()
    assert seed_of(5, "view", 12) == sum(byte << 8 * place for place, byte in enumerate(hashed)) // 2


def test_every_word_counts_and_so_does_their_order() -> None:
    seeds = [
        seed_of(0),
        seed_of(1),
        seed_of(0, "a"),
        seed_of(0, "a", "b"),
        seed_of(0, "b", "a"),
        seed_of(0, "ab"),
        seed_of(0, "a", 1, 23),
        seed_of(0, "a", 12, 3),
    ]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_drawing_from_one_stream_does_not_move_another() -> None:
    one, other = stream(0, "a"), stream(0, "b")
    alone = stream(0, "b").random(5)
    one.random(100)
    assert np.array_equal(other.random(5), alone)
