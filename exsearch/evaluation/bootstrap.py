"""Intervals and paired comparisons by the percentile bootstrap.

Efron and Tibshirani, *An Introduction to the Bootstrap* (1993), chapters 13 and
16; the paired form is what Koehn (2004) brought to language tasks: both systems
are measured on the same resampled questions, so what makes a question hard for
both cancels out.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from exsearch.errors import InputError
from exsearch.evaluation.judgement import Judgement
from exsearch.records import Record

Metric = Literal["em", "f1", "accuracy"]
Interval = tuple[float, float]

_CHUNK = 4_000_000
"""Values drawn at once: bounds memory at about 64 MB whatever the number of questions."""


class Comparison(Record):
    """How much better the candidate is than the champion on the same questions."""

    candidate: str
    champion: str
    metric: Metric
    gain: float
    """Mean of candidate − champion per question; positive: the candidate is better."""
    ci: Interval
    """Percentile bootstrap interval of the gain."""
    p: float
    """Two-sided: twice the share of resamples on the far side of 0, at most 1."""
    n: int
    """Questions compared."""


def mean_interval(
    values: Iterable[float], *, resamples: int = 10_000, confidence: float = 0.95, seed: int = 0
) -> Interval:
    """Bootstrap interval of the mean of `values`, shape [n], in any order.

    Raises:
        ValueError: there is no value.
    """
    data = np.sort(np.asarray(list(values), dtype=np.float64))
    if data.size == 0:
        raise ValueError("no value to take the mean of")
    return _percentiles(_resampled_means(data, resamples, seed), confidence)


def paired_gain(
    candidate: Sequence[Judgement],
    champion: Sequence[Judgement],
    *,
    metric: Metric = "em",
    names: tuple[str, str] = ("candidate", "champion"),
    resamples: int = 10_000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Comparison:
    """Compare two systems question by question; the order of either list is free.

    p is two-sided, counted as (c + 1) / (resamples + 1) per side so that it is
    never 0 (Davison and Hinkley 1997, section 4.2). Swapping the sides negates
    gain and interval and leaves p as it is.

    Raises:
        InputError: the two did not answer the same questions, or none at all.
    """
    pairs = pair(candidate, champion)
    gains = np.array([getattr(a, metric) - getattr(b, metric) for a, b in pairs])
    means = _resampled_means(gains, resamples, seed)
    return Comparison(
        candidate=names[0],
        champion=names[1],
        metric=metric,
        gain=float(gains.mean()),
        ci=_percentiles(means, confidence),
        p=_two_sided(means),
        n=len(pairs),
    )


def pair(
    candidate: Sequence[Judgement], champion: Sequence[Judgement]
) -> list[tuple[Judgement, Judgement]]:
    """Both systems' judgements side by side, sorted by question id.

    Raises:
        InputError: an id is there twice, or on one side only, or there is none.
    """
    ours, theirs = by_id(candidate, "the candidate"), by_id(champion, "the champion")
    if not ours and not theirs:
        raise InputError("there is no question to compare on: both evaluations are empty")
    if ours.keys() != theirs.keys():
        only = [sorted(ours.keys() - theirs.keys()), sorted(theirs.keys() - ours.keys())]
        raise InputError(
            "the two evaluations are not on the same questions: "
            f"{len(only[0])} only in the candidate's {_some(only[0])}, "
            f"{len(only[1])} only in the champion's {_some(only[1])}. "
            "Evaluate both on the same question file with the same limit."
        )
    return [(ours[key], theirs[key]) for key in sorted(ours)]


def by_id(judgements: Sequence[Judgement], whose: str) -> dict[str, Judgement]:
    """Judgements by question id.

    Raises:
        InputError: a question was judged twice.
    """
    found: dict[str, Judgement] = {}
    for judgement in judgements:
        if judgement.question_id in found:
            raise InputError(f"question {judgement.question_id!r} is judged twice in {whose}")
        found[judgement.question_id] = judgement
    return found


def _some(ids: list[str]) -> str:
    return f"({', '.join(ids[:3])}{', …' if len(ids) > 3 else ''})" if ids else "(none)"


def _resampled_means(data: NDArray[np.float64], resamples: int, seed: int) -> NDArray[np.float64]:
    """Means of `resamples` draws of n values with replacement, shape [resamples]."""
    generator = np.random.default_rng(seed)
    rows = max(1, _CHUNK // data.size)
    means = np.empty(resamples)
    for start in range(0, resamples, rows):
        block = means[start : start + rows]
        drawn = generator.integers(0, data.size, (block.size, data.size), dtype=np.int32)
        block[:] = data[drawn].mean(axis=1)
    return means


def _percentiles(means: NDArray[np.float64], confidence: float) -> Interval:
    tail = (1.0 - confidence) / 2.0
    low, high = np.quantile(means, [tail, 1.0 - tail])
    return float(low), float(high)


def _two_sided(means: NDArray[np.float64]) -> float:
    below, above = int((means <= 0.0).sum()), int((means >= 0.0).sum())
    return min(1.0, 2.0 * (min(below, above) + 1) / (means.size + 1))
