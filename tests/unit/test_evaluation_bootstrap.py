"""Intervals, paired comparisons and the gate."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exsearch.config import GateConfig
from exsearch.errors import InputError
from exsearch.evaluation.bootstrap import mean_interval, paired_gain
from exsearch.evaluation.gate import decide
from exsearch.evaluation.judgement import Judgement

pytestmark = pytest.mark.unit

UNIT = st.floats(0, 1)
PAIRS = st.lists(st.tuples(UNIT, UNIT), min_size=1, max_size=30)


def judgements(scores: list[float], recall: float | None = None) -> list[Judgement]:
    found = {} if recall is None else {"recall@20": recall}
    return [
        Judgement(question_id=f"q{i}", em=s, f1=s, retrieval=found) for i, s in enumerate(scores)
    ]


def test_interval_of_a_fair_coin_is_the_binomial_one() -> None:
    low, high = mean_interval([0.0, 1.0] * 200, resamples=20_000)
    half = 1.96 * 0.5 / 400**0.5
    assert low == pytest.approx(0.5 - half, abs=0.004)
    assert high == pytest.approx(0.5 + half, abs=0.004)


def test_less_confidence_gives_a_narrower_interval() -> None:
    values = [0.0, 0.2, 0.9, 1.0] * 10
    wide, narrow = mean_interval(values, confidence=0.99), mean_interval(values, confidence=0.5)
    assert wide[0] < narrow[0] < narrow[1] < wide[1]


def test_nothing_to_average_is_refused() -> None:
    with pytest.raises(ValueError, match="no value"):
        mean_interval([])


@settings(max_examples=50)
@given(st.lists(UNIT, min_size=1, max_size=30), st.randoms())
def test_interval_bounds_and_order_invariance(values: list[float], random) -> None:
    low, high = mean_interval(values, resamples=200)
    assert min(values) - 1e-9 <= low <= high <= max(values) + 1e-9
    assert mean_interval(random.sample(values, len(values)), resamples=200) == (low, high)


def test_interval_spans_several_blocks_of_draws() -> None:
    values = np.random.default_rng(1).random(30_000)  # 133 resamples per block
    low, high = mean_interval(values, resamples=400)
    assert high - low == pytest.approx(2 * 1.96 * values.std() / 30_000**0.5, rel=0.2)


@settings(max_examples=50)
@given(PAIRS, st.randoms())
def test_paired_gain_does_not_depend_on_order(pairs: list[tuple[float, float]], random) -> None:
    ours, theirs = judgements([a for a, _ in pairs]), judgements([b for _, b in pairs])
    first = paired_gain(ours, theirs, metric="f1", resamples=200)
    shuffled = paired_gain(
        random.sample(ours, len(ours)),
        random.sample(theirs, len(theirs)),
        metric="f1",
        resamples=200,
    )
    assert first == shuffled
    assert -1.0 <= first.ci[0] <= first.ci[1] <= 1.0
    assert 0.0 < first.p <= 1.0


@settings(max_examples=50)
@given(PAIRS)
def test_paired_gain_is_antisymmetric(pairs: list[tuple[float, float]]) -> None:
    ours, theirs = judgements([a for a, _ in pairs]), judgements([b for _, b in pairs])
    there = paired_gain(ours, theirs, resamples=200)
    back = paired_gain(theirs, ours, resamples=200)
    assert back.gain == pytest.approx(-there.gain)
    assert back.ci == pytest.approx((-there.ci[1], -there.ci[0]))
    assert back.p == there.p


def test_pairing_sees_what_unpaired_intervals_hide() -> None:
    ours = judgements([0.0] * 45 + [1.0] * 55)
    theirs = judgements([0.0] * 55 + [1.0] * 45)
    c = paired_gain(ours, theirs)
    assert c.gain == pytest.approx(0.10)
    assert c.ci[0] > 0.0
    assert c.p < 0.01
    assert c.n == 100
    apart = [mean_interval([j.em for j in side]) for side in (ours, theirs)]
    assert apart[0][0] < apart[1][1]  # taken singly, the two intervals overlap


def test_equal_systems_have_p_one() -> None:
    same = judgements([0.0, 1.0, 1.0])
    c = paired_gain(same, same)
    assert (c.gain, c.ci, c.p) == (0.0, (0.0, 0.0), 1.0)


@pytest.mark.parametrize(
    ("ours", "theirs", "words"),
    [
        (3, 2, "1 only in the candidate's \\(q2\\)"),
        (1, 9, "8 only in the champion's \\(q1, q2, q3, …\\)"),
        (0, 0, "both evaluations are empty"),
    ],
)
def test_different_questions_are_refused(ours: int, theirs: int, words: str) -> None:
    with pytest.raises(InputError, match=words):
        paired_gain(judgements([1.0] * ours), judgements([1.0] * theirs))


def test_a_question_judged_twice_is_refused() -> None:
    with pytest.raises(InputError, match="judged twice in the champion"):
        paired_gain(judgements([1.0]), judgements([1.0]) * 2)


def test_gate_promotes_a_certain_gain() -> None:
    decision = decide(
        judgements([1.0] * 60, recall=0.8),
        judgements([1.0] * 30 + [0.0] * 30, recall=0.8),
        GateConfig(),
        names=("iter-01", "warmup"),
    )
    assert decision.promoted
    assert decision.champion == "iter-01"
    assert decision.reason.startswith("certain gain: em +0.500")
    assert "recall held" in decision.reason
    assert decision.figures.comparison.n == 60


def test_gate_keeps_the_champion_when_the_gain_is_uncertain() -> None:
    decision = decide(
        judgements([1.0, 1.0, 0.0, 1.0] * 5, recall=0.8),
        judgements([1.0, 0.0, 1.0, 1.0] * 4 + [0.0, 1.0, 0.0, 1.0], recall=0.8),
        GateConfig(),
        names=("iter-01", "warmup"),
    )
    assert decision.figures.comparison.gain > 0
    assert not decision.promoted
    assert decision.champion == "warmup"
    assert decision.reason.startswith("no certain gain")


def test_gate_asks_for_the_whole_interval_above_the_margin() -> None:
    ours, theirs = judgements([1.0] * 50), judgements([1.0] * 40 + [0.0] * 10)
    assert decide(ours, theirs, GateConfig(margin=0.05)).promoted
    assert not decide(ours, theirs, GateConfig(margin=0.15)).promoted
    assert not decide(ours, ours, GateConfig()).promoted  # no gain at all


def test_gate_refuses_when_recall_fell() -> None:
    ours = judgements([1.0] * 60, recall=0.7)
    theirs = judgements([0.0] * 60, recall=0.8)
    decision = decide(ours, theirs, GateConfig())
    assert not decision.promoted
    assert "recall fell by more than 0.020: recall@20 0.700 against 0.800" in decision.reason
    assert decide(ours, theirs, GateConfig(max_recall_loss=0.1)).promoted


def test_gate_says_when_recall_cannot_be_checked() -> None:
    decision = decide(judgements([1.0] * 9), judgements([0.0] * 9), GateConfig())
    assert decision.promoted
    assert "not checked" in decision.reason
    assert decision.figures.recall_n == 0


def test_gate_refuses_different_questions() -> None:
    with pytest.raises(InputError, match="not on the same questions"):
        decide(judgements([1.0]), judgements([1.0, 1.0]), GateConfig())
