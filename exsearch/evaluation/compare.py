"""Two evaluations against each other, metric by metric."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from exsearch.errors import InputError
from exsearch.evaluation.bootstrap import Comparison, Metric, paired_gain
from exsearch.evaluation.files import JUDGEMENTS, load_evaluation
from exsearch.evaluation.judgement import Judgement
from exsearch.evaluation.predictions import score_predictions
from exsearch.evaluation.summary import Summary, summarise
from exsearch.records import Question
from exsearch.storage import exists, join

METRICS: tuple[Metric, ...] = ("em", "f1", "accuracy")


@dataclass(frozen=True)
class Side:
    """One of the two: its name and its judgements."""

    name: str
    judgements: tuple[Judgement, ...]


@dataclass(frozen=True)
class Report:
    """Both sides' figures and the paired gains of the first over the second."""

    candidate: Summary
    champion: Summary
    comparisons: tuple[Comparison, ...]

    def document(self) -> dict[str, Any]:
        """The report as JSON values."""
        return {
            "candidate": self.candidate.model_dump(mode="json"),
            "champion": self.champion.model_dump(mode="json"),
            "comparisons": [c.model_dump(mode="json") for c in self.comparisons],
        }


def load_side(path: str, questions: Sequence[Question] | None) -> Side:
    """An evaluation folder, a stage's folder that has one in `eval/`, or a predictions file.

    Raises:
        InputError: it is neither, or a predictions file without questions to score it on.
    """
    for folder in (path, join(path, "eval")):
        if exists(join(folder, JUDGEMENTS)):
            found = load_evaluation(folder)
            return Side(found.name, found.judgements)
    if not exists(path):
        raise InputError(f"there is nothing at {path}")
    if not path.endswith((".jsonl", ".json", ".gz")):
        raise InputError(
            f"{path} is no evaluation folder (it has no {JUDGEMENTS}) "
            "and no predictions file (.jsonl)"
        )
    if questions is None:
        raise InputError(f"{path} holds predictions: name the questions too, with --questions")
    return Side(path, tuple(score_predictions(questions, path)))


def told_apart(candidate: Side, champion: Side, paths: tuple[str, str]) -> tuple[str, str]:
    """The sides' names, or their paths where both go by one name."""
    if candidate.name == champion.name:
        return paths
    return candidate.name, champion.name


def compare(
    candidate: Side,
    champion: Side,
    names: tuple[str, str],
    *,
    bootstrap: int = 10_000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Report:
    """Summaries of both and the paired gain in every answer metric.

    Raises:
        InputError: the two did not answer the same questions.
    """
    comparisons = tuple(
        paired_gain(
            candidate.judgements,
            champion.judgements,
            metric=metric,
            names=names,
            resamples=bootstrap,
            confidence=confidence,
            seed=seed,
        )
        for metric in METRICS
    )
    ours, theirs = (
        summarise(side.judgements, name=name, bootstrap=bootstrap, confidence=confidence, seed=seed)
        for side, name in zip((candidate, champion), names, strict=True)
    )
    return Report(candidate=ours, champion=theirs, comparisons=comparisons)
