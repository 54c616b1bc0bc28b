"""What a practitioner of EM watches at every E-step."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from exsearch.evaluation.bootstrap import Interval, mean_interval
from exsearch.records import Question, QuestionWeights, Record


class EStepStatistics(Record):
    """`estep.json`. Rates are in 0..1; log-likelihoods in nats."""

    questions: int
    samples: int
    """Trajectories, failed ones included."""
    log_marginal: float | None
    """Mean over questions of log(1/K Σ_k p(y|x,z_k)), where some sample did not fail."""
    log_marginal_ci: Interval | None
    ess: float
    """Mean effective sample size over questions with any weight."""
    reachability: float
    """Share of questions where some sample's own answer is right."""
    reached: float
    """Share of questions that give training signal."""
    sample_accuracy: float
    """Share of samples whose own answer is right."""
    steps: float
    """Mean searches per sample that did not fail."""
    over_search: float | None
    """Share of samples that searched more often than the gold hops, where known."""
    under_search: float | None
    failed: float
    """Share of samples that failed."""
    failures: dict[str, int]
    inexact: int
    """Samples whose ids differ from a fresh rendering of their text."""

    def line(self) -> str:
        """The main figures in words, for a log."""
        marginal = "–" if self.log_marginal is None else f"{self.log_marginal:.2f}"
        return (
            f"log-marginal {marginal}, ESS {self.ess:.2f}, reachability "
            f"{self.reachability:.2f}, reached {self.reached:.2f}, sample accuracy "
            f"{self.sample_accuracy:.2f}, failed {self.failed:.2f}"
        )


def summarise(
    weights: Sequence[QuestionWeights],
    questions: Mapping[str, Question],
    inexact: int,
    seed: int = 0,
) -> EStepStatistics:
    """Statistics of one E-step.

    Args:
        weights: at least one question's.
        questions: by id, for the gold number of hops.
    """
    samples = [sample for group in weights for sample in group.samples]
    alive = [sample for sample in samples if sample.failure is None]
    marginals = [g.log_marginal for g in weights if g.log_marginal is not None]
    surplus = [
        sample.steps - hops
        for group in weights
        if (hops := questions[group.question_id].hops) is not None
        for sample in group.samples
        if sample.failure is None
    ]
    failures = Counter(s.failure for s in samples if s.failure is not None)
    return EStepStatistics(
        questions=len(weights),
        samples=len(samples),
        log_marginal=_mean(marginals),
        log_marginal_ci=mean_interval(marginals, seed=seed) if marginals else None,
        ess=_mean([g.ess for g in weights if g.ess > 0]) or 0.0,
        reachability=_share(any(s.correct for s in g.samples) for g in weights),
        reached=_share(g.reached for g in weights),
        sample_accuracy=_share(s.correct for s in samples),
        steps=_mean([float(s.steps) for s in alive]) or 0.0,
        over_search=_share(s > 0 for s in surplus) if surplus else None,
        under_search=_share(s < 0 for s in surplus) if surplus else None,
        failed=1.0 - len(alive) / len(samples),
        failures=dict(failures.most_common()),
        inexact=inexact,
    )


def _mean(values: Sequence[float]) -> float | None:
    return statistics.fmean(values) if values else None


def _share(flags: Iterable[bool]) -> float:
    return statistics.fmean(map(float, flags))
