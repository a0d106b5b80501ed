from typing import Any

import pytest

from report.made_up import FILLINGS, falling, made_up_facts, made_up_rows
from simmim.report import RunFacts, Verdict, judge


def said(verdict: Verdict) -> str:
    return " ".join(reason.text for reason in verdict.reasons)


def test_a_run_that_beats_the_best_filling_is_learning() -> None:
    verdict = judge(made_up_facts())
    assert verdict.word == "learning"
    assert verdict.reasons[0].text == (
        "It predicts hidden parts better than the best filling that has learned nothing (nearest pixel): "
        "0.300 against 0.500, on the same fixed images and masks."
    )
    assert {reason.tone for reason in verdict.reasons} == {"good"}


@pytest.mark.parametrize(
    ("loss", "word"),
    [(0.48, "learning"), (0.49, "not yet"), (0.70, "not yet"), (0.79, "not at all"), (1.20, "not at all")],
)
def test_the_word_comes_from_where_the_loss_lies_among_the_fillings(loss: float, word: str) -> None:
    assert judge(made_up_facts(made_up_rows(lambda share: loss))).word == word


def test_what_shows_nothing_early_or_still_falls_has_not_failed() -> None:
    early = made_up_rows(lambda share: 0.85, reports=10)
    assert judge(made_up_facts(early, complete=False)).word == "not yet"
    late = made_up_rows(lambda share: 0.85, reports=40)
    assert judge(made_up_facts(late)).word == "not at all"
    assert judge(made_up_facts(made_up_rows(lambda share: 1.5 - 0.7 * share))).word == "not yet"


def test_without_reports_or_with_no_finite_loss() -> None:
    assert judge(made_up_facts([], complete=False)).word == "not yet"
    verdict = judge(made_up_facts(made_up_rows(lambda share: None, skipped_steps=400)))
    assert verdict.word == "not at all"
    assert "400 of 400 steps were skipped" in said(verdict)


def test_without_fillings_the_training_loss_speaks() -> None:
    def without(rows: list[dict[str, Any]]) -> RunFacts:
        return made_up_facts([{n: v for n, v in row.items() if not n.startswith("fixed_loss")} for row in rows])

    assert judge(without(made_up_rows())).word == "learning"
    assert judge(without(made_up_rows(lambda share: 0.8))).word == "not at all"


def test_the_trend_is_that_of_the_last_quarter() -> None:
    assert "level" in said(judge(made_up_facts()))
    assert "still fell" in said(judge(made_up_facts(made_up_rows(lambda share: 0.9 - 0.6 * share))))
    rising = judge(made_up_facts(made_up_rows(lambda share: 0.1 + 0.3 * share)))
    assert "rose by" in said(rising)
    assert "Lower optimizer.lr." in rising.advice


@pytest.mark.parametrize(
    ("more", "words", "tone"),
    [
        ({"skipped_steps": 2}, "2 of 400 steps were skipped", "doubtful"),
        ({"skipped_steps": 40}, "40 of 400 steps were skipped", "bad"),
        ({"data_wait": 0.5}, "50% of the time went into waiting for data", "doubtful"),
        ({"gradient_norm": 1e-9}, "vanished", "bad"),
        ({"avgdist": 4.0}, "may be too easy", "doubtful"),
        ({"avgdist": 40.0}, "may be too hard", "doubtful"),
    ],
)
def test_what_else_is_worth_knowing(more: dict[str, float], words: str, tone: str) -> None:
    verdict = judge(made_up_facts(made_up_rows(**more)))
    assert verdict.word == "learning"
    assert [reason.tone for reason in verdict.reasons if words in reason.text] == [tone]
    assert words not in said(judge(made_up_facts()))


def test_a_jump_of_the_gradient_is_told_only_where_it_is_recent() -> None:
    for place, told in ((35, True), (3, False)):
        rows = made_up_rows()
        rows[place]["gradient_norm"] = 100.0
        assert ("jumps" in said(judge(made_up_facts(rows)))) == told


def test_bad_files_are_counted() -> None:
    assert "2 files could not be read" in said(judge(made_up_facts(bad_files=[("a", "b"), ("c", "d")])))


@pytest.mark.parametrize(("accuracy", "word"), [(0.9, "learning"), (0.11, "not at all")])
def test_a_classifier_is_compared_with_guessing(accuracy: float, word: str) -> None:
    rows = [{"step": 10 * n, "loss": 2.3, "accuracy": accuracy, "skipped_steps": 0} for n in range(1, 41)]
    facts = made_up_facts(rows, derived={"total_steps": 400, "classes": list(range(10))})
    verdict = judge(facts)
    assert verdict.word == word
    assert "guessing would name 10.0%" in verdict.reasons[0].text


def test_the_made_up_losses_are_what_the_tests_think() -> None:
    assert min(FILLINGS.values()) == 0.5
    assert (falling(0), round(falling(1), 3)) == (0.8, 0.3)
