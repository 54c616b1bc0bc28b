"""The questions of a run: which are sampled from in which round, which are measured."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from exsearch.config import DataConfig
from exsearch.data.lines import Skipped
from exsearch.data.questions import read_questions
from exsearch.errors import InputError
from exsearch.records import Question


def load_questions(
    files: Sequence[str], data: DataConfig, purpose: str, tell: Callable[[str], None]
) -> list[Question]:
    """All questions of the files, in order, ids unique; `tell` hears what was skipped.

    Raises:
        InputError: no file is set, or an id occurs twice.
        BadLine: a line cannot be read and `data.skip_bad` is off.
    """
    if not files:
        raise InputError(f"data.{purpose} names no question file")
    questions: dict[str, Question] = {}
    skipped = Skipped()
    for file in files:
        read = read_questions(file, data.format, skip_bad=data.skip_bad, report=skipped)
        for question in read:
            if question.id in questions:
                raise InputError(f"{file}: question id {question.id!r} occurs twice in {purpose}")
            questions[question.id] = question
    if skipped.total:
        tell(f"{purpose}: {skipped.summary()}")
    return list(questions.values())


def some(questions: Sequence[Question], limit: int | None, seed: int) -> list[Question]:
    """At most `limit` questions, a seeded choice in their own order."""
    if limit is None or limit >= len(questions):
        return list(questions)
    chosen = sorted(random.Random(seed).sample(range(len(questions)), limit))
    return [questions[i] for i in chosen]


def of_round(
    questions: Sequence[Question], limit: int | None, number: int, seed: int
) -> list[Question]:
    """The questions of round `number` (from 1): fresh ones as long as there are any.

    The questions are shuffled once by the seed; each round takes the next `limit`,
    beginning again when they run out.
    """
    if limit is None or limit >= len(questions):
        return list(questions)
    order = list(questions)
    random.Random(seed).shuffle(order)
    start = (number - 1) * limit
    return [order[i % len(order)] for i in range(start, start + limit)]
