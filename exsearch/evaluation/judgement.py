"""One question's outcome: what was answered, and how good that is.

An episode that failed, and a question without an answer, are wrong answers; they
stay in every mean and are counted by reason.
"""

from __future__ import annotations

from pydantic import Field

from exsearch.evaluation import metrics
from exsearch.evaluation.retrieval import retrieval_metrics
from exsearch.records import Question, Record, Trajectory

MISSING = "missing"
"""Failure reason: a predictions file has no answer for the question."""

NO_ANSWER = "no_answer"
"""Failure reason: the episode ended without a failure but its answer is blank."""


class Judgement(Record):
    """How one question went. Metrics are in 0..1."""

    question_id: str
    prediction: str | None = None
    em: float = 0.0
    f1: float = 0.0
    accuracy: float = 0.0
    steps: int | None = None
    """Searches made; None where only a prediction is known."""
    hops: int | None = None
    """Gold number of searches, where known."""
    retrieval: dict[str, float] = Field(default_factory=dict)
    """See `retrieval_metrics`; empty where the question names no gold passage."""
    log_likelihood: float | None = None
    """log p(gold answer | question, episode) of the likeliest alias, summed over its tokens."""
    failure: str | None = None
    """Why there is no answer: a short word."""
    forced: bool = False
    """The step limit ended the search."""


def judge(question: Question, trajectory: Trajectory) -> Judgement:
    """Judge an episode.

    Raises:
        ValueError: the trajectory is another question's.
    """
    if trajectory.question_id != question.id:
        raise ValueError(f"trajectory of {trajectory.question_id!r}, question {question.id!r}")
    failure = trajectory.failure.reason if trajectory.failure else None
    return _judged(
        question,
        trajectory.answer,
        failure or (None if _says_something(trajectory.answer) else NO_ANSWER),
        steps=len(trajectory.steps),
        retrieval=retrieval_metrics(question, trajectory),
        log_likelihood=max((score.logprob for score in trajectory.scores), default=None),
        forced=trajectory.forced,
    )


def judge_prediction(question: Question, prediction: str | None) -> Judgement:
    """Judge a bare answer, of whatever system; None or blank is a missing one."""
    return _judged(question, prediction, None if _says_something(prediction) else MISSING)


def _says_something(answer: str | None) -> bool:
    return answer is not None and bool(answer.strip())


def _judged(
    question: Question,
    prediction: str | None,
    failure: str | None,
    *,
    steps: int | None = None,
    retrieval: dict[str, float] | None = None,
    log_likelihood: float | None = None,
    forced: bool = False,
) -> Judgement:
    counted = prediction if failure is None else None
    return Judgement(
        question_id=question.id,
        prediction=prediction,
        em=metrics.exact_match(counted, question.answers),
        f1=metrics.f1(counted, question.answers),
        accuracy=metrics.accuracy(counted, question.answers),
        steps=steps,
        hops=question.hops,
        retrieval=retrieval or {},
        log_likelihood=log_likelihood,
        failure=failure,
        forced=forced,
    )
