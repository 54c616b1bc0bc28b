"""What is watched at an E-step, against figures counted by hand."""

from __future__ import annotations

import pytest
from scripted import question

from exsearch.em.statistics import summarise
from exsearch.records import QuestionWeights, WeightedTrajectory

pytestmark = pytest.mark.unit


def sample(number: int, **more: object) -> WeightedTrajectory:
    return WeightedTrajectory.model_validate({"sample": number, "weight": 0.5, **more})


ASKED = {
    "a": question("a").model_copy(update={"hops": 2}),
    "b": question("b").model_copy(update={"hops": 1}),
    "c": question("c"),
}
WEIGHED = [
    QuestionWeights(
        question_id="a",
        samples=(sample(0, steps=2, correct=True), sample(1, steps=1)),
        log_marginal=-1.0,
        ess=2.0,
        reached=True,
    ),
    QuestionWeights(
        question_id="b",
        samples=(sample(0, steps=4), sample(1, weight=0.0, steps=9, failure="malformed")),
        log_marginal=-3.0,
        ess=1.0,
        reached=False,
    ),
    QuestionWeights(
        question_id="c",
        samples=(
            sample(0, weight=0.0, failure="retriever"),
            sample(1, weight=0.0, failure="malformed"),
        ),
        log_marginal=None,
        ess=0.0,
        reached=False,
    ),
]


def test_figures_counted_by_hand() -> None:
    found = summarise(WEIGHED, ASKED, inexact=2)
    assert (found.questions, found.samples, found.inexact) == (3, 6, 2)
    assert found.log_marginal == pytest.approx(-2.0)
    assert found.log_marginal_ci is not None
    assert found.ess == pytest.approx(1.5)
    assert found.reachability == pytest.approx(1 / 3)
    assert found.reached == pytest.approx(1 / 3)
    assert found.sample_accuracy == pytest.approx(1 / 6)
    assert found.steps == pytest.approx(7 / 3)
    assert found.over_search == pytest.approx(1 / 3)
    assert found.under_search == pytest.approx(1 / 3)
    assert found.failed == pytest.approx(0.5)
    assert found.failures == {"malformed": 2, "retriever": 1}


def test_when_all_failed_nothing_is_made_up() -> None:
    found = summarise(WEIGHED[2:], ASKED, inexact=0)
    assert (found.log_marginal, found.log_marginal_ci) == (None, None)
    assert (found.ess, found.steps, found.failed) == (0.0, 0.0, 1.0)
    assert (found.over_search, found.under_search) == (None, None)
