"""Anyone's answers as JSON lines, scored like our own.

One object per line: `id` and one of `answer`, `pred`, `prediction`, `output`. The
answer is a string, a number, or null for none; KILT's `output: [{"answer": …}]`
and a list of one answer are read too. Other keys are left alone.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from exsearch.errors import InputError
from exsearch.evaluation.judgement import Judgement, judge_prediction
from exsearch.records import Question
from exsearch.storage import open_text

ANSWER_KEYS = ("answer", "pred", "prediction", "output")


def score_predictions(questions: Sequence[Question], path: str | Path) -> list[Judgement]:
    """Judge every question by its line in the file, in the questions' order.

    A question without a line, or with a null or blank answer, counts as wrong,
    with failure `missing`.

    Raises:
        InputError: a line cannot be read, names an unknown id or one seen before
            (the message has file, line and field); two questions share an id.
        StorageError: the file is missing or unreadable.
    """
    known: set[str] = set()
    for question in questions:
        if question.id in known:
            raise InputError(f"two questions have the id {question.id!r}; ids must be unique")
        known.add(question.id)
    answers = read_predictions(path, known)
    return [judge_prediction(question, answers.get(question.id)) for question in questions]


def read_predictions(path: str | Path, known: set[str]) -> dict[str, str | None]:
    """Answers by question id; None where the line says there is no answer.

    Raises:
        InputError: as for `score_predictions`.
    """
    answers: dict[str, str | None] = {}
    lines: dict[str, int] = {}
    try:
        with open_text(path) as file:
            for number, line in enumerate(file, 1):
                if not line.strip():
                    continue
                identifier, answer = _parse(line, str(path), number)
                if identifier in lines:
                    raise _bad(
                        path,
                        number,
                        "id",
                        f"{identifier!r} was answered in line {lines[identifier]} already",
                    )
                if identifier not in known:
                    raise _bad(path, number, "id", f"{identifier!r} is not among the questions")
                answers[identifier], lines[identifier] = answer, number
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text: {error.reason}") from error
    return answers


def _parse(line: str, source: str, number: int) -> tuple[str, str | None]:
    try:
        value = json.loads(line)
    except json.JSONDecodeError as error:
        raise _bad(source, number, "(line)", f"not JSON: {error.msg}") from error
    except RecursionError as error:
        raise _bad(source, number, "(line)", "nested too deeply") from error
    if not isinstance(value, dict):
        raise _bad(source, number, "(line)", "not a JSON object")
    identifier = value.get("id")
    if isinstance(identifier, bool) or not isinstance(identifier, str | int):
        raise _bad(source, number, "id", "missing, or neither text nor a whole number")
    keys = [key for key in ANSWER_KEYS if key in value]
    if not keys:
        raise _bad(source, number, "answer", f"none of {', '.join(ANSWER_KEYS)} is there")
    return str(identifier), _answer(value[keys[0]], source, number, keys[0])


def _answer(value: Any, source: str, number: int, field: str) -> str | None:
    """The answer in any of the accepted shapes."""
    if isinstance(value, list):
        if len(value) != 1:
            raise _bad(source, number, field, f"holds {len(value)} answers; give exactly one")
        value = value[0]
    if isinstance(value, dict) and "answer" in value:
        value = value["answer"]
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        return str(value)
    raise _bad(source, number, field, f"is no answer but {type(value).__name__}")


def _bad(source: str | Path, number: int, field: str, problem: str) -> InputError:
    return InputError(f"{source}, line {number}, field '{field}': {problem}. Mend the line.")
