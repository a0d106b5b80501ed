"""A run judged in plain words: learning, not yet, not at all; why, and what to try."""

import statistics
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

from simmim.report.facts import RunFacts

Word = Literal["learning", "not yet", "not at all"]
Tone = Literal["good", "doubtful", "bad"]

FILLINGS = "fixed_loss_"
"""What the names of the fillings' losses begin with."""

_CLEARLY = 0.03  # a difference below this share of the loss is noise
_EARLY = 0.3  # share of the run within which nothing need show yet
_FEWEST_REPORTS = 8  # fewer show no trend
_SPIKE = 20.0  # times the median
_VANISHED = 1e-6
_MANY_SKIPPED, _MUCH_WAITING = 0.01, 0.3


class Reason(NamedTuple):
    """One thing that speaks for or against a run, and what to try about it."""

    tone: Tone
    text: str
    advice: str = ""


class Verdict(NamedTuple):
    """What a run is worth so far."""

    word: Word
    reasons: Sequence[Reason]

    @property
    def advice(self) -> list[str]:
        """What to try, the most important first."""
        return [reason.advice for reason in self.reasons if reason.advice]


def judge(facts: RunFacts) -> Verdict:
    """Judge a run by its own numbers: first whether it learns, then what else is worth knowing."""
    word, first = _learns(facts)
    return Verdict(word, [first, *_trend(facts), *_steps(facts), *_masks(facts), *_data(facts)])


def best_filling(facts: RunFacts) -> tuple[str, float] | None:
    """Name and loss of the best filling that has learned nothing, on the fixed images."""
    names = {name for row in facts.rows for name in row if name.startswith(FILLINGS)}
    losses = {name.removeprefix(FILLINGS): facts.newest(name) for name in names}
    known = [(name, loss) for name, loss in losses.items() if loss is not None]
    return min(known, key=lambda one: one[1]) if known else None


def filling_words(name: str) -> str:
    """A filling's name as a person says it."""
    return name.replace("_", " ")


def _learns(facts: RunFacts) -> tuple[Word, Reason]:
    losses = [value for _, value in facts.series("loss")]
    if not losses:
        text = "No report has a finite loss." if facts.rows else "There is no report yet."
        advice = "Lower optimizer.lr or lengthen schedule.warmup, and look into log.txt." if facts.rows else ""
        return ("not at all" if facts.rows else "not yet"), Reason("bad" if facts.rows else "doubtful", text, advice)
    accuracy, classes = facts.newest("accuracy"), len(facts.derived.get("classes", ()))
    if accuracy is not None and classes > 1:
        return _beats_chance(facts, accuracy, 1 / classes)
    fixed, best = facts.newest("fixed_loss"), best_filling(facts)
    if fixed is None or best is None:
        return _falls(facts, losses)
    return _beats_fillings(facts, fixed, best)


def _beats_chance(facts: RunFacts, accuracy: float, chance: float) -> tuple[Word, Reason]:
    text = f"It names {accuracy:.1%} of the held-out images rightly; guessing would name {chance:.1%}."
    if accuracy > 1.5 * chance:
        return "learning", Reason("good", text)
    return _word_for_nothing(facts), Reason("bad", text, "Raise optimizer.lr or schedule.duration; check the labels.")


def _falls(facts: RunFacts, losses: list[float]) -> tuple[Word, Reason]:
    part = max(len(losses) // 4, 1)
    first, last = statistics.mean(losses[:part]), statistics.mean(losses[-part:])
    text = f"The training loss went from {first:.4g} to {last:.4g}; there are no fillings to compare it with."
    if len(losses) > 1 and last < first * (1 - _CLEARLY):
        return "learning", Reason("good", text)
    return _word_for_nothing(facts), Reason("doubtful", text, "Try another optimizer.lr, three times up and down.")


def _beats_fillings(facts: RunFacts, fixed: float, best: tuple[str, float]) -> tuple[Word, Reason]:
    name, loss = filling_words(best[0]), best[1]
    numbers = f"{fixed:.3f} against {loss:.3f}, on the same fixed images and masks"
    if fixed < loss * (1 - _CLEARLY):
        text = f"It predicts hidden parts better than the best filling that has learned nothing ({name}): {numbers}."
        return "learning", Reason("good", text)
    mean_colour = facts.newest(FILLINGS + "mean_colour")
    longer = "Train longer (schedule.duration), with more images, or with a larger optimizer.lr."
    if mean_colour is not None and fixed < mean_colour * (1 - _CLEARLY):
        text = f"It does better than the mean colour, but not yet than the best filling ({name}): {numbers}."
        return "not yet", Reason("doubtful", text, longer)
    text = f"It predicts no better than fillings that have learned nothing (best: {name}): {numbers}."
    return _word_for_nothing(facts), Reason("bad", text, longer)


def _word_for_nothing(facts: RunFacts) -> Word:
    """What a run is called in which nothing shows: early on that is no bad sign, nor while the loss still falls."""
    early = float(facts.last["step"]) < _EARLY * facts.total_steps
    return "not yet" if early or _change(facts) < -_CLEARLY else "not at all"


def _change(facts: RunFacts) -> float:
    """How the loss of the last quarter differs from that of the quarter before, as a share; 0 where too little is known."""
    losses = [value for _, value in facts.series("loss")]
    if len(losses) < _FEWEST_REPORTS:
        return 0.0
    part = len(losses) // 4
    before, now = statistics.mean(losses[-2 * part : -part]), statistics.mean(losses[-part:])
    return (now - before) / max(abs(before), 1e-12)


def _trend(facts: RunFacts) -> Iterator[Reason]:
    if len(facts.series("loss")) < _FEWEST_REPORTS:
        return
    change = _change(facts)
    if change > _CLEARLY:
        yield Reason(
            "bad", f"The loss rose by {change:.1%} over the last quarter of the reports.", "Lower optimizer.lr."
        )
    elif change < -_CLEARLY:
        advice = "It had not levelled off: a longer schedule.duration will help." if facts.complete else ""
        yield Reason("good", f"The loss still fell by {-change:.1%} over the last quarter of the reports.", advice)
    else:
        yield Reason("good", f"The loss is level: {change:+.1%} over the last quarter of the reports.")


def _steps(facts: RunFacts) -> Iterator[Reason]:
    skipped, step = int(facts.last.get("skipped_steps") or 0), float(facts.last.get("step") or 0)
    if skipped:
        many = skipped > _MANY_SKIPPED * step
        text = f"{skipped} of {step:.0f} steps were skipped, for loss or gradient was not finite."
        advice = "Lower optimizer.lr, lengthen schedule.warmup, or set machine.precision=fp32." if many else ""
        yield Reason("bad" if many else "doubtful", text, advice)
    norms = [value for _, value in facts.series("gradient_norm")]
    if len(norms) < _FEWEST_REPORTS:
        return
    usual, last = statistics.median(norms), norms[-len(norms) // 4 :]
    if max(last) > _SPIKE * usual:
        text = f"The gradient norm jumps: {max(last):.3g} in the last quarter, {usual:.3g} as a rule."
        yield Reason("bad", text, "Lower optimizer.lr or optimizer.clip_norm.")
    elif statistics.median(last) < _VANISHED:
        text = f"The gradient has all but vanished ({statistics.median(last):.1e})."
        yield Reason("bad", text, "Check that the images are not all alike; try optimizer.lr ten times larger.")


def _masks(facts: RunFacts) -> Iterator[Reason]:
    measured, band = [value for _, value in facts.series("avgdist")], facts.good_avgdist
    if not measured or band is None:
        return
    distance = statistics.mean(measured)
    where = f"the good band of {band.low:.1f} to {band.high:.1f} px"
    if band.low <= distance <= band.high:
        yield Reason("good", f"AvgDist is {distance:.1f} px, inside {where}.")
        return
    too, change = ("easy", "larger") if distance < band.low else ("hard", "smaller")
    text = f"AvgDist is {distance:.1f} px, outside {where}: the task may be too {too}."
    size = "x".join(map(str, facts.image_size or ()))
    yield Reason(
        "doubtful", text, f"Choose {change} masking.mask_patch or masking.ratio; simmim avgdist --image-size {size}"
    )


def _data(facts: RunFacts) -> Iterator[Reason]:
    if facts.bad_files:
        count = len(facts.bad_files)
        text = f"{count} files could not be read; they are" if count > 1 else "1 file could not be read; it is"
        yield Reason("doubtful", f"{text} listed below.")
    waits = [value for _, value in facts.series("data_wait")]
    if waits and statistics.mean(waits) > _MUCH_WAITING:
        text = f"{statistics.mean(waits):.0%} of the time went into waiting for data."
        yield Reason("doubtful", text, "Raise machine.workers, or shrink the images on disk once.")
