"""The posterior over a question's samples: properties that must hold for any likelihoods."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scripted import question

from exsearch.config import WeighingConfig
from exsearch.em.weights import (
    answer_log_likelihood,
    effective_sample_size,
    log_marginal,
    log_sum_exp,
    posterior,
    weigh_question,
)
from exsearch.records import AnswerScore, Failure, Provenance, QuestionWeights, Trajectory

pytestmark = pytest.mark.unit

likelihood = st.floats(-1e4, 0.0)
likelihoods = st.lists(st.one_of(st.none(), likelihood), min_size=1, max_size=9)
temperature = st.floats(0.05, 20.0)


def close(a: float, b: float, tolerance: float = 1e-9) -> bool:
    return math.isclose(a, b, rel_tol=tolerance, abs_tol=1e-12)


@given(likelihoods, temperature)
def test_weights_are_a_distribution_over_the_samples_that_did_not_fail(
    values: list[float | None], tau: float
) -> None:
    weights = posterior(values, tau)
    assert all(
        (w == 0.0) if v is None else (0.0 <= w <= 1.0) for v, w in zip(values, weights, strict=True)
    )
    alive = any(v is not None for v in values)
    assert close(sum(weights), 1.0 if alive else 0.0)


@given(likelihoods, temperature)
def test_a_likelier_answer_never_weighs_less(values: list[float | None], tau: float) -> None:
    pairs = [(v, w) for v, w in zip(values, posterior(values, tau), strict=True) if v is not None]
    ordered = sorted(pairs)
    assert [w for _, w in ordered] == sorted(w for _, w in ordered)


@given(likelihoods, temperature, st.randoms(use_true_random=False))
def test_order_does_not_matter(
    values: list[float | None], tau: float, chance: random.Random
) -> None:
    places = list(range(len(values)))
    chance.shuffle(places)
    shuffled = posterior([values[i] for i in places], tau)
    straight = posterior(values, tau)
    assert all(close(shuffled[n], straight[i]) for n, i in enumerate(places))


@given(likelihoods, st.floats(-500, 500))
def test_a_common_shift_changes_no_weight_and_shifts_the_marginal(
    values: list[float | None], shift: float
) -> None:
    moved = [None if v is None else v + shift for v in values]
    pairs = zip(posterior(values), posterior(moved), strict=True)
    assert all(math.isclose(a, b, abs_tol=1e-9) for a, b in pairs)
    before, after = log_marginal(values), log_marginal(moved)
    if before is None:
        assert after is None
    else:
        assert after is not None
        assert math.isclose(after, before + shift, abs_tol=1e-8)


@given(likelihoods, temperature)
def test_temperature_is_a_division_of_the_logarithms(
    values: list[float | None], tau: float
) -> None:
    divided = [None if v is None else v / tau for v in values]
    assert posterior(values, tau) == posterior(divided)


@given(st.lists(likelihood, min_size=2, max_size=6, unique=True))
def test_temperature_flattens_and_sharpens(values: list[float]) -> None:
    ordered = sorted(values)
    assume(ordered[-1] - ordered[-2] > 1e-3)
    hot, plain, cold = (posterior(values, tau) for tau in (1e9, 1.0, 1e-5))
    assert all(math.isclose(w, 1 / len(values), rel_tol=1e-3) for w in hot)
    assert max(cold) > 1 - 1e-9
    assert max(hot) <= max(plain) + 1e-9 <= max(cold) + 2e-9


@given(likelihoods, temperature)
def test_effective_sample_size_lies_between_one_and_the_samples_alive(
    values: list[float | None], tau: float
) -> None:
    alive = sum(v is not None for v in values)
    size = effective_sample_size(posterior(values, tau))
    assert size == 0.0 if alive == 0 else 1.0 - 1e-9 <= size <= alive + 1e-6


@given(st.integers(1, 9), likelihood, st.integers(0, 4))
def test_ties_share_alike(samples: int, value: float, failed: int) -> None:
    weights = posterior([value] * samples + [None] * failed)
    assert all(close(w, 1 / samples) for w in weights[:samples])
    assert close(effective_sample_size(weights), samples)


@given(likelihood, temperature)
def test_a_single_sample_has_all_the_weight(value: float, tau: float) -> None:
    assert posterior([value], tau) == [1.0]
    assert log_marginal([value]) == value


def test_nothing_underflows_at_minus_ten_thousand() -> None:
    weights = posterior([-1e4, -1e4 - math.log(3.0), None])
    assert weights == pytest.approx([0.75, 0.25, 0.0])
    assert log_marginal([-1e4, -1e4]) == pytest.approx(-1e4)
    assert posterior([-1e4, -1.0]) == [0.0, 1.0]
    assert effective_sample_size([0.0, 1.0]) == 1.0


@given(st.integers(1, 6))
def test_when_all_failed_there_is_no_weight(samples: int) -> None:
    failed: list[float | None] = [None] * samples
    assert posterior(failed) == [0.0] * samples
    assert effective_sample_size(posterior(failed)) == 0.0
    assert log_marginal(failed) is None


@given(st.lists(st.floats(-30.0, 0.0), min_size=1, max_size=6), st.integers(0, 6))
def test_a_failed_sample_counts_in_the_marginal_as_probability_zero(
    values: list[float], failed: int
) -> None:
    probability = math.fsum(map(math.exp, values)) / (len(values) + failed)
    found = log_marginal([*values, *[None] * failed])
    assert found is not None
    assert math.isclose(found, math.log(probability), abs_tol=1e-9)


@given(st.lists(st.floats(-700, 700), min_size=1, max_size=5))
def test_log_sum_exp_bounds(values: list[float]) -> None:
    total = log_sum_exp(values)
    assert max(values) <= total <= max(values) + math.log(len(values)) + 1e-9


def test_log_sum_exp_of_nothing_and_of_impossible() -> None:
    assert log_sum_exp([]) == -math.inf
    assert log_sum_exp([-math.inf, -math.inf]) == -math.inf
    assert posterior([-math.inf, None]) == [0.0, 0.0]


def test_aliases_count_by_the_best_or_by_their_sum() -> None:
    scores = [
        AnswerScore(alias=a, logprob=math.log(p), tokens=2) for a, p in [("a", 0.2), ("b", 0.3)]
    ]
    assert answer_log_likelihood(scores, "max") == pytest.approx(math.log(0.3))
    assert answer_log_likelihood(scores, "logsumexp") == pytest.approx(math.log(0.5))
    assert answer_log_likelihood([], "max") is None


# --- whole questions


MADE_BY = Provenance(model="m", index="i", prompt="p")


def trajectory(sample: int, value: float | None, name: str = "q1") -> Trajectory:
    if value is None:
        failure = Failure(reason="malformed")
        return Trajectory(question_id=name, sample=sample, provenance=MADE_BY, failure=failure)
    score = AnswerScore(alias="Ada Lovelace", logprob=value, tokens=3)
    return Trajectory(question_id=name, sample=sample, provenance=MADE_BY, scores=(score,))


def weigh(values: list[float | None], **config: object) -> QuestionWeights:
    samples = [trajectory(n, v) for n, v in enumerate(values)]
    how = WeighingConfig.model_validate(config)
    return weigh_question(question(), samples, [False] * len(values), how)


@given(likelihoods, st.randoms(use_true_random=False))
def test_samples_come_out_in_their_own_order(
    values: list[float | None], chance: random.Random
) -> None:
    samples = [trajectory(n, v) for n, v in enumerate(values)]
    correct = {n: bool(n % 2) for n in range(len(values))}
    chance.shuffle(samples)
    flags = [correct[t.sample] for t in samples]
    found = weigh_question(question(), samples, flags, WeighingConfig())
    straight = weigh(values)
    assert [s.sample for s in found.samples] == list(range(len(values)))
    assert [s.correct for s in found.samples] == list(correct.values())
    for a, b in zip(found.samples, straight.samples, strict=True):
        assert close(a.weight, b.weight)
        assert a.log_likelihood == b.log_likelihood


@given(likelihoods, st.floats(0.0, 1.0))
def test_reached_means_that_some_sample_makes_the_answer_likely(
    values: list[float | None], floor: float
) -> None:
    alive = [v for v in values if v is not None]
    expected = bool(alive) and (floor == 0.0 or max(alive) >= math.log(floor))
    assert weigh(values, min_answer_probability=floor).reached is expected


@given(st.lists(likelihood, min_size=1, max_size=5))
def test_a_floor_of_zero_is_the_papers_rule(values: list[float | None]) -> None:
    assert weigh(values, min_answer_probability=0.0).reached


@given(likelihoods)
def test_the_floor_changes_no_weight(values: list[float | None]) -> None:
    strict, loose = (weigh(values, min_answer_probability=p) for p in (1.0, 0.0))
    assert strict.samples == loose.samples
    assert strict.log_marginal == loose.log_marginal


def test_a_failed_sample_keeps_its_place_and_its_reason() -> None:
    weighed = weigh([-1.0, None, -1.0])
    assert [s.weight for s in weighed.samples] == pytest.approx([0.5, 0.0, 0.5])
    assert weighed.samples[1].failure == "malformed"
    assert weighed.samples[1].log_likelihood is None
    assert weighed.log_marginal == pytest.approx(-1.0 + math.log(2 / 3))


def test_scores_of_a_failed_sample_do_not_count() -> None:
    scored = trajectory(0, -0.1).model_copy(update={"failure": Failure(reason="malformed")})
    weighed = weigh_question(
        question(), [scored, trajectory(1, -5.0)], [False, False], WeighingConfig()
    )
    assert [s.weight for s in weighed.samples] == [0.0, 1.0]
    assert not weighed.reached
