"""The E-step's arithmetic: from answer likelihoods to posterior weights.

With trajectories z_1..z_K sampled from the model itself, the posterior over them
is p(z_k | x, y) ∝ p(y | x, z_k), so (paper, section 3; temperature τ ours)

    w_k = softmax_k( log p(y | x, z_k) / τ )         over one question's samples.

Everything is pure and per question: neither sharding nor order nor what else is
in the file can change a weight. A failed sample keeps its place with weight 0
and still counts in K.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from exsearch.config import WeighingConfig
from exsearch.records import AnswerScore, Question, QuestionWeights, Trajectory, WeightedTrajectory


def log_sum_exp(values: Sequence[float]) -> float:
    """log Σ exp(v), without overflow or underflow; −∞ for no values."""
    if not values:
        return -math.inf
    top = max(values)
    if math.isinf(top):
        return top
    return top + math.log(math.fsum(math.exp(v - top) for v in values))


def answer_log_likelihood(scores: Sequence[AnswerScore], aliases: str) -> float | None:
    """log p(y|x,z) over the gold aliases: the best one (`max`) or their sum (`logsumexp`)."""
    values = [score.logprob for score in scores]
    if not values:
        return None
    return max(values) if aliases == "max" else log_sum_exp(values)


def posterior(log_likelihoods: Sequence[float | None], temperature: float = 1.0) -> list[float]:
    """w_k = softmax(ℓ_k/τ) over the samples that did not fail; 0 for those that did.

    Args:
        log_likelihoods: ℓ_k = log p(y|x,z_k), None for a failed sample; shape [K].

    Returns:
        weights, shape [K], summing to 1, or all 0 where every sample failed.
    """
    scaled = [None if value is None else value / temperature for value in log_likelihoods]
    total = log_sum_exp([value for value in scaled if value is not None])
    if math.isinf(total):
        # No sample can have produced the answer (or none is left): nothing to prefer.
        return [0.0] * len(scaled)
    return [0.0 if value is None else math.exp(value - total) for value in scaled]


def effective_sample_size(weights: Sequence[float]) -> float:
    """1/Σw²: K where all samples count alike, 1 where one decides; 0 for no weight at all."""
    squares = math.fsum(w * w for w in weights)
    return 1.0 / squares if squares > 0.0 else 0.0


def log_marginal(log_likelihoods: Sequence[float | None]) -> float | None:
    """log( 1/K Σ_k p(y|x,z_k) ), a failed sample counting as p = 0; None if all failed."""
    alive = [value for value in log_likelihoods if value is not None]
    return log_sum_exp(alive) - math.log(len(log_likelihoods)) if alive else None


def weigh_question(
    question: Question,
    trajectories: Sequence[Trajectory],
    correct: Sequence[bool],
    config: WeighingConfig,
) -> QuestionWeights:
    """All samples of one question, weighed together.

    Args:
        trajectories: the question's K samples, in any order, scores filled in.
        correct: whether each sample's own answer is right; same order.
    """
    likelihoods = [
        None if t.failure else answer_log_likelihood(t.scores, config.aliases) for t in trajectories
    ]
    weights = posterior(likelihoods, config.temperature)
    best = max((value for value in likelihoods if value is not None), default=-math.inf)
    floor = config.min_answer_probability
    samples = [
        WeightedTrajectory(
            sample=t.sample,
            weight=weight,
            log_likelihood=likelihood,
            correct=right,
            steps=len(t.steps),
            failure=t.failure.reason if t.failure else None,
        )
        for t, likelihood, weight, right in zip(
            trajectories, likelihoods, weights, correct, strict=True
        )
    ]
    return QuestionWeights(
        question_id=question.id,
        samples=tuple(sorted(samples, key=lambda s: s.sample)),
        log_marginal=log_marginal(likelihoods),
        ess=effective_sample_size(weights),
        reached=any(w > 0 for w in weights) and (floor == 0.0 or best >= math.log(floor)),
    )
