"""Does the candidate replace the champion? Decided by rule, written down with its figures."""

from __future__ import annotations

from collections.abc import Sequence

from exsearch.config import GateConfig
from exsearch.evaluation.bootstrap import Comparison, pair, paired_gain
from exsearch.evaluation.judgement import Judgement
from exsearch.evaluation.retrieval import RECALL
from exsearch.records import Record


class GateFigures(Record):
    """What the decision rests on."""

    comparison: Comparison
    margin: float
    """The gain's lower bound had to exceed this."""
    confidence: float
    """Coverage of the gain's interval; its lower end is exceeded with (1 + this) / 2."""
    recall_metric: str = RECALL
    recall_candidate: float | None = None
    """Mean over the questions with known gold passages; None without any."""
    recall_champion: float | None = None
    max_recall_loss: float
    """Recall may have fallen by at most this."""
    recall_n: int = 0


class GateDecision(Record):
    """The gate's word: `champion` is whom to serve from here on."""

    promoted: bool
    reason: str
    """One sentence with the figures that settled it."""
    champion: str
    figures: GateFigures


def decide(
    candidate: Sequence[Judgement],
    champion: Sequence[Judgement],
    config: GateConfig,
    *,
    names: tuple[str, str] = ("candidate", "champion"),
    bootstrap: int = 10_000,
    seed: int = 0,
) -> GateDecision:
    """Promote only on a certain gain without a loss of retrieval.

    The candidate is promoted when the paired bootstrap interval of its gain lies
    wholly above `config.margin` and its mean recall@20 is no more than
    `config.max_recall_loss` below the champion's. Where no gold passages are
    known, recall cannot be checked and the reason says so.

    Raises:
        InputError: the two did not answer the same questions, or none.
    """
    comparison = paired_gain(
        candidate,
        champion,
        metric=config.metric,
        names=names,
        resamples=bootstrap,
        confidence=config.confidence,
        seed=seed,
    )
    ours, theirs, known = _recalls(candidate, champion)
    figures = GateFigures(
        comparison=comparison,
        margin=config.margin,
        confidence=config.confidence,
        recall_candidate=ours,
        recall_champion=theirs,
        max_recall_loss=config.max_recall_loss,
        recall_n=known,
    )
    gained, gain_words = _gain_verdict(figures)
    kept, recall_words = _recall_verdict(figures)
    promoted = gained and kept
    return GateDecision(
        promoted=promoted,
        reason=f"{gain_words}; {recall_words}",
        champion=names[0] if promoted else names[1],
        figures=figures,
    )


def _recalls(
    candidate: Sequence[Judgement], champion: Sequence[Judgement]
) -> tuple[float | None, float | None, int]:
    """Mean recall of both over the questions for which both know it, and how many."""
    both = [
        (a.retrieval[RECALL], b.retrieval[RECALL])
        for a, b in pair(candidate, champion)
        if RECALL in a.retrieval and RECALL in b.retrieval
    ]
    if not both:
        return None, None, 0
    ours, theirs = zip(*both, strict=True)
    return sum(ours) / len(both), sum(theirs) / len(both), len(both)


def _gain_verdict(figures: GateFigures) -> tuple[bool, str]:
    c = figures.comparison
    told = (
        f"{c.metric} {c.gain:+.3f} with {figures.confidence:.0%} interval "
        f"[{c.ci[0]:+.3f}, {c.ci[1]:+.3f}] on {c.n} questions"
    )
    if c.ci[0] > figures.margin:
        return True, f"certain gain: {told}, all above the margin {figures.margin:+.3f}"
    return False, f"no certain gain: {told}, not all above the margin {figures.margin:+.3f}"


def _recall_verdict(figures: GateFigures) -> tuple[bool, str]:
    ours, theirs = figures.recall_candidate, figures.recall_champion
    if ours is None or theirs is None:
        return True, "retrieval recall not checked: no gold passages are known"
    told = f"{figures.recall_metric} {ours:.3f} against {theirs:.3f}"
    # Means of equal recalls may differ in their last bits; that is no fall.
    if theirs - ours > figures.max_recall_loss + 1e-12:
        return False, f"retrieval recall fell by more than {figures.max_recall_loss:.3f}: {told}"
    return True, f"retrieval recall held: {told}"
