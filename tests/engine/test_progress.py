import time
from collections.abc import Iterator

import pytest

from simmim.engine.progress import Clock, Watch, duration_text


class Hand:
    """A clock that moves only when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def hand(monkeypatch: pytest.MonkeyPatch) -> Hand:
    moved = Hand()
    monkeypatch.setattr(time, "monotonic", moved)
    return moved


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (0.4, "0 s"),
        (42.4, "42 s"),
        (59.6, "1 min 0 s"),
        (185, "3 min 5 s"),
        (3600, "1 h 0 min"),
        (7800, "2 h 10 min"),
        (86399, "23 h 59 min"),
        (86400, "1 d 0 h"),
        (4 * 86400 + 3 * 3600 + 59, "4 d 3 h"),
    ],
)
def test_a_time_is_said_as_a_person_says_it(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text


def test_the_clock_counts_images_and_waiting(hand: Hand) -> None:
    clock = Clock()

    def items() -> Iterator[int]:
        for item in range(4):
            hand.now += 1.0  # a second of waiting for each
            yield item

    for _ in clock.waiting_for(items()):
        hand.now += 3.0  # three of work
        clock.step_done(32)
    assert clock.report() == {"images_per_second": pytest.approx(4 * 32 / 16), "data_wait": pytest.approx(0.25)}
    hand.now += 10.0
    assert clock.report() == {"images_per_second": 0.0, "data_wait": 0.0}


def test_the_time_that_is_left_follows_the_pace_of_the_last_two_hundred_steps(hand: Hand) -> None:
    clock = Clock()
    assert clock.remaining_seconds(10) == 0.0
    for number in range(500):
        hand.now += 9.0 if number < 300 else 2.0
        clock.step_done(1)
    assert clock.remaining_seconds(30) == pytest.approx(60.0)


def test_where_there_is_no_terminal_a_line_is_written_now_and_then(
    hand: Hand, capsys: pytest.CaptureFixture[str]
) -> None:
    watch = Watch(100, done=0, shown=True)
    row = {"loss": 0.5, "images_per_second": 100.0, "data_wait": 0.25, "lr": 1e-3}
    with watch:
        for step in (1, 2, 3, 100):
            watch.step(step)
            watch.say(step, row | {"loss": None if step == 100 else 0.5}, 185.0)
            hand.now += 6.0
    assert capsys.readouterr().err.splitlines() == [
        "step 1 of 100: loss 0.5000, 100 images/s, 25% waiting for data, 3 min 5 s left",
        "step 3 of 100: loss 0.5000, 100 images/s, 25% waiting for data, 3 min 5 s left",
        "step 100 of 100: no finite loss, 100 images/s, 25% waiting for data, 3 min 5 s left",
    ]


def test_nothing_is_said_where_nothing_shall_be_shown(capsys: pytest.CaptureFixture[str]) -> None:
    watch = Watch(10, done=0, shown=False)
    with watch:
        watch.say(10, {"loss": 0.5, "images_per_second": 1.0, "data_wait": 0.0, "lr": 0.1}, 0.0)
    captured = capsys.readouterr()
    assert captured.out + captured.err == ""
