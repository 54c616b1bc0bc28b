"""Episodes made small: what the viewer shows of them, as plain JSON values."""

from __future__ import annotations

from typing import Any

from exsearch.evaluation.judgement import Judgement
from exsearch.records import Passage, Question, Step, Trajectory, WeightedTrajectory

CUTS = {"question": 1000, "answer": 400, "query": 400, "evidence": 800, "title": 160, "text": 700}
"""Longest texts, in characters."""

MOST_ALIASES = 8
"""Gold answers shown per question."""


class Shelf:
    """Passages kept once: `rows` is [[title, text], …], text "" where nobody kept it."""

    def __init__(self) -> None:
        self.rows: list[list[str]] = []
        self._places: dict[str, int] = {}

    def place(self, passage: Passage, *, with_text: bool) -> int:
        """The passage's row, made on first sight."""
        if passage.pid not in self._places:
            self._places[passage.pid] = len(self.rows)
            self.rows.append([cut(passage.title, "title"), ""])
        place = self._places[passage.pid]
        if with_text and not self.rows[place][1]:
            self.rows[place][1] = cut(passage.text, "text")
        return place


def cut(text: str, kind: str) -> str:
    """The text, shortened to its kind's length."""
    most = CUTS[kind]
    return text if len(text) <= most else text[: most - 1] + "…"


def pack_question(
    identifier: str, question: Question | None, cards: list[dict[str, Any]], **facts: Any
) -> dict[str, Any]:
    """A question with its cards; facts that are None are left out."""
    known: dict[str, Any] = {"id": identifier, "cards": cards, "question": identifier}
    if question is not None:
        known |= {
            "question": cut(question.question, "question"),
            "answers": [cut(a, "answer") for a in question.answers[:MOST_ALIASES]],
            "hops": question.hops,
            "kind": question.kind,
        }
    return {k: v for k, v in {**known, **facts}.items() if v is not None and v != ""}


def pack_sample(
    trajectory: Trajectory,
    weighted: WeightedTrajectory | None,
    question: Question | None,
    shelf: Shelf,
) -> dict[str, Any]:
    """One sample of the E-step with its weight."""
    card = _episode(f"Sample {trajectory.sample + 1}", trajectory, question, shelf)
    if weighted is not None:
        card |= {
            "weight": round(weighted.weight, 4),
            "correct": weighted.correct,
            "ll": None if weighted.log_likelihood is None else round(weighted.log_likelihood, 3),
        }
    return card


def pack_stage(
    stage: str,
    trajectory: Trajectory,
    judgement: Judgement | None,
    question: Question | None,
    shelf: Shelf,
) -> dict[str, Any]:
    """A stage's episode on a test question with how it was judged."""
    card = _episode(stage, trajectory, question, shelf)
    if judgement is not None:
        ll = judgement.log_likelihood
        card |= {
            "correct": judgement.em == 1.0,
            "f1": round(judgement.f1, 3),
            "ll": None if ll is None else round(ll, 3),
        }
    return card


def _episode(
    label: str, trajectory: Trajectory, question: Question | None, shelf: Shelf
) -> dict[str, Any]:
    failure = trajectory.failure
    return {
        "label": label,
        "answer": None if trajectory.answer is None else cut(trajectory.answer, "answer"),
        "forced": trajectory.forced,
        "repairs": trajectory.repairs,
        "failure": failure and [cut(failure.reason, "query"), cut(failure.detail, "query")],
        "steps": [_step(step, question, shelf) for step in trajectory.steps],
    }


def _step(step: Step, question: Question | None, shelf: Shelf) -> dict[str, Any]:
    """`passages`: [row on the shelf, place among the kept or 0, 1 if gold], as retrieved."""
    ranks = {position: rank for rank, position in enumerate(step.kept, 1)}
    return {
        "query": cut(step.query, "query"),
        "evidence": None if step.evidence is None else cut(step.evidence, "evidence"),
        "passages": [
            [
                shelf.place(passage, with_text=position in ranks),
                ranks.get(position, 0),
                int(_is_gold(passage, question)),
            ]
            for position, passage in enumerate(step.passages, 1)
        ],
    }


def _is_gold(passage: Passage, question: Question | None) -> bool:
    if question is None:
        return False
    return passage.pid in question.pids or (not question.pids and passage.title in question.titles)
