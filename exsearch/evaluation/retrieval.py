"""Did the searches of an episode find the gold passages? Measured by pytrec_eval.

An episode's run is one ranking: the union of what its steps returned, every
document at the best rank it had in any step; equal ranks go to the earlier step.
Documents are passages by id where the question knows its gold ids, otherwise
titles (several passages of one title are one document).
"""

from __future__ import annotations

import unicodedata

import pytrec_eval

from exsearch.records import Passage, Question, Trajectory

CUTOFFS = (1, 5, 20)
"""The k of recall@k."""

RECALL = "recall@20"
"""The recall that summaries, the gate and the report speak of."""

_MEASURES = {"recall." + ",".join(map(str, CUTOFFS)), "recip_rank", "set_recall"}


def retrieval_metrics(question: Question, trajectory: Trajectory) -> dict[str, float]:
    """Retrieval metrics of one episode, each in 0..1.

    Returns:
        `recall@k` (share of gold documents among the run's first k), `mrr`
        (1 / rank of the first gold document), `support_recall` (share of gold
        documents found at any rank of any step), `all_found` (1 where that share
        is 1). Empty where the question names no gold passage. All 0 where
        nothing was retrieved.
    """
    by_pid = bool(question.pids)
    gold = set(question.pids) if by_pid else {_title_key(t) for t in question.titles}
    if not gold:
        return {}
    return score_ranking(gold, fused_ranking(trajectory, by_pid=by_pid))


def fused_ranking(trajectory: Trajectory, *, by_pid: bool) -> list[str]:
    """The documents of all steps, best first, without repeats."""
    best: dict[str, tuple[int, int]] = {}
    for number, step in enumerate(trajectory.steps):
        for rank, passage in enumerate(step.passages):
            key = _document_key(passage, by_pid)
            best[key] = min(best.get(key, (rank, number)), (rank, number))
    return sorted(best, key=lambda key: best[key])


def score_ranking(gold: set[str], ranking: list[str]) -> dict[str, float]:
    """Score one ranking (best first, no repeats) against a non-empty gold set.

    Documents go to pytrec_eval under running numbers, so that no title, however
    odd its characters, reaches its C code; scores fall with rank, so that it has
    no ties to break.
    """
    numbers: dict[str, str] = {}
    for key in [*ranking, *sorted(gold)]:
        numbers.setdefault(key, str(len(numbers)))
    relevant = {"q": {numbers[key]: 1 for key in gold}}
    run = {"q": {numbers[key]: float(-rank) for rank, key in enumerate(ranking)}}
    evaluator = pytrec_eval.RelevanceEvaluator(relevant, _MEASURES)
    found: dict[str, float] = evaluator.evaluate(run)["q"]
    return {
        **{f"recall@{k}": found[f"recall_{k}"] for k in CUTOFFS},
        "mrr": found["recip_rank"],
        "support_recall": found["set_recall"],
        "all_found": float(gold <= set(ranking)),
    }


def _document_key(passage: Passage, by_pid: bool) -> str:
    return passage.pid if by_pid else _title_key(passage.title)


def _title_key(title: str) -> str:
    """Titles are compared as composed Unicode with single spaces; case counts."""
    return " ".join(unicodedata.normalize("NFC", title).split())
