"""Many questions in one line: the means, their intervals, and how many they rest on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from pydantic import ConfigDict, Field

from exsearch.errors import InputError
from exsearch.evaluation.bootstrap import Interval, mean_interval
from exsearch.evaluation.judgement import Judgement
from exsearch.evaluation.retrieval import RECALL
from exsearch.records import Record


class Summary(Record):
    """One stage's figures, as `summary.json` holds them. `recall_20` is written `recall@20`.

    A figure that nothing is known for is None, and so is its interval.
    """

    model_config = ConfigDict(populate_by_name=True, serialize_by_alias=True)

    name: str
    n: int
    """Questions, failures and missing answers included."""
    em: float
    em_ci: Interval
    f1: float
    f1_ci: Interval
    accuracy: float
    accuracy_ci: Interval
    log_marginal: float | None = None
    """Mean over `scored` questions of log p(gold | episode): the marginal at one sample each."""
    log_marginal_ci: Interval | None = None
    scored: int = 0
    """Questions whose gold answer was scored (an episode that failed has no score)."""
    ess: float | None = None
    """Mean effective sample size of the E-step that led here; None without one."""
    steps: float | None = None
    """Mean searches per question."""
    steps_ci: Interval | None = None
    over_search: float | None = None
    """Share of `with_hops` questions searched more often than their gold hops."""
    under_search: float | None = None
    """Share of `with_hops` questions searched less often than their gold hops."""
    with_hops: int = 0
    """Questions with known hops whose episode ended in an answer."""
    forced: float = 0.0
    """Share of questions whose search the step limit ended."""
    failures: dict[str, int] = Field(default_factory=dict)
    """Questions without an answer, by reason; each counts as wrong."""
    recall_20: float | None = Field(default=None, alias=RECALL)
    recall_20_ci: Interval | None = Field(default=None, alias=f"{RECALL}_ci")
    mrr: float | None = None
    mrr_ci: Interval | None = None
    support_recall: float | None = None
    """Mean share of a question's gold passages found by any of its searches."""
    support_recall_ci: Interval | None = None
    all_found: float | None = None
    """Share of questions all of whose gold passages were found."""
    with_gold: int = 0
    """Questions whose gold passages are known: what the retrieval figures rest on."""
    seconds: float | None = None
    """Wall time of the evaluation."""


def summarise(
    judgements: Sequence[Judgement],
    *,
    name: str,
    bootstrap: int = 10_000,
    confidence: float = 0.95,
    seed: int = 0,
    ess: float | None = None,
    seconds: float | None = None,
) -> Summary:
    """Means over all questions with their bootstrap intervals.

    Args:
        judgements: one per question, in any order.
        bootstrap: resamples per interval.
        confidence: coverage of the intervals.
        ess, seconds: figures known only to the caller, kept as they are.

    Raises:
        InputError: there is no judgement.
    """
    if not judgements:
        raise InputError(f"{name}: there is no question to summarise")
    figures: dict[str, object] = {}

    def put(key: str, values: Iterable[float | None]) -> int:
        known = [value for value in values if value is not None]
        if known:
            figures[key] = sum(known) / len(known)
            figures[f"{key}_ci"] = mean_interval(
                known, resamples=bootstrap, confidence=confidence, seed=seed
            )
        return len(known)

    for metric in ("em", "f1", "accuracy", "steps"):
        put(metric, (getattr(j, metric) for j in judgements))
    for metric in (RECALL, "mrr", "support_recall"):
        put(metric, (j.retrieval.get(metric) for j in judgements))
    figures["scored"] = put("log_marginal", (j.log_likelihood for j in judgements))
    return Summary.model_validate(
        {
            "name": name,
            "n": len(judgements),
            "ess": ess,
            "seconds": seconds,
            "forced": sum(j.forced for j in judgements) / len(judgements),
            "failures": dict(Counter(j.failure for j in judgements if j.failure).most_common()),
            **figures,
            **_against_gold(judgements),
        }
    )


def _against_gold(judgements: Sequence[Judgement]) -> dict[str, object]:
    """What needs gold hops or gold passages, without intervals."""
    surplus = [
        j.steps - j.hops
        for j in judgements
        if j.steps is not None and j.hops is not None and j.failure is None
    ]
    found = [j.retrieval["all_found"] for j in judgements if j.retrieval]
    return {
        "with_hops": len(surplus),
        "over_search": sum(s > 0 for s in surplus) / len(surplus) if surplus else None,
        "under_search": sum(s < 0 for s in surplus) / len(surplus) if surplus else None,
        "with_gold": len(found),
        "all_found": sum(found) / len(found) if found else None,
    }
