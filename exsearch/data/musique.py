"""MuSiQue (Trivedi et al., 2022): questions composed of single-hop ones.

`question_decomposition` lists the single-hop questions; `#1` in one stands for the
answer of the first, and `A >> r` is a relation from a knowledge base ("A r" here).
"""

from __future__ import annotations

import re
from typing import Any

from exsearch.data.lines import FieldError, clean_text, list_field, text_field
from exsearch.data.sentences import supporting_sentence
from exsearch.records import Hop, Question

_REFERENCE = re.compile(r"#(\d+)")
_RELATION = re.compile(r"\s*>>\s*")
_LOOSE_MARK = re.compile(r"\s+([?,.]|'s\b)")


def parse(record: dict[str, Any]) -> Question:
    """One MuSiQue record.

    Raises:
        FieldError: a field is missing or wrong, a reference points nowhere, or the question
            is marked as unanswerable.
    """
    if record.get("answerable") is False:
        raise FieldError("answerable", "is false: there is no answer to learn or to score")
    hops = decomposition(record)
    aliases = [clean_text(str(a), "answer_aliases") for a in record.get("answer_aliases") or []]
    name = text_field(record, "id")
    return Question(
        id=name,
        question=text_field(record, "question"),
        answers=tuple(dict.fromkeys([text_field(record, "answer"), *aliases])),
        dataset="musique",
        kind=name.partition("__")[0] if "__" in name else f"{len(hops)}hop",
        hops=len(hops),
        titles=tuple(dict.fromkeys(hop.title for hop in hops if hop.title)),
        decomposition=hops,
    )


def decomposition(record: dict[str, Any]) -> tuple[Hop, ...]:
    """The hops, each sub-question with its references resolved.

    Raises:
        FieldError: as `parse`.
    """
    paragraphs = {
        paragraph.get("idx", place): paragraph
        for place, paragraph in enumerate(record.get("paragraphs") or [])
        if isinstance(paragraph, dict)
    }
    steps = list_field(record, "question_decomposition")
    if not steps:
        raise FieldError("question_decomposition", "is empty")
    hops: list[Hop] = []
    for step in steps:
        if not isinstance(step, dict):
            raise FieldError("question_decomposition", "must hold objects")
        query = resolve(text_field(step, "question"), [hop.answer for hop in hops])
        answer = text_field(step, "answer")
        paragraph = paragraphs.get(step.get("paragraph_support_idx"), {})
        text = str(paragraph.get("paragraph_text") or "")
        hops.append(
            Hop(
                query=query,
                answer=answer,
                title=str(paragraph["title"]) if paragraph.get("title") else None,
                fact=supporting_sentence(clean_text(text, "paragraphs"), answer, query),
            )
        )
    return tuple(hops)


def resolve(question: str, answers: list[str]) -> str:
    """Put earlier answers in the place of `#1`, `#2`, …, and take out `>>` and loose spaces.

    Raises:
        FieldError: a reference to a step that has not been answered yet.
    """

    def answer(match: re.Match[str]) -> str:
        number = int(match[1])
        if not 1 <= number <= len(answers):
            raise FieldError(
                "question_decomposition", f"{match[0]} refers to none of {len(answers)} answers"
            )
        return answers[number - 1]

    text = _REFERENCE.sub(answer, _RELATION.sub(" ", question))
    return _LOOSE_MARK.sub(r"\1", text).strip()
