"""FlashRAG's JSON lines (Jin et al., 2024): NQ, TriviaQA, PopQA, Bamboogle and many more.

`{"id", "question", "golden_answers": […], "metadata": {…}}`; for HotpotQA,
2WikiMultihopQA and MuSiQue, `metadata` keeps fields of the original, which are read
as there.
"""

from __future__ import annotations

from typing import Any

from exsearch.data import hotpotqa, musique
from exsearch.data.lines import FieldError, clean_text, text_field
from exsearch.records import Hop, Question


def parse(record: dict[str, Any]) -> Question:
    """One FlashRAG record.

    Raises:
        FieldError: a field is missing or wrong, or no answer is given.
    """
    answers = _answers(record.get("golden_answers"))
    metadata = record.get("metadata") or {}
    if not isinstance(metadata, dict):
        raise FieldError("metadata", f"must be an object, not {type(metadata).__name__}")
    question = text_field(record, "question")
    kind = str(metadata.get("type") or "")
    hops = _hops(question, answers[0], kind, metadata)
    titles = tuple(dict.fromkeys(hop.title for hop in hops if hop.title))
    return Question(
        id=text_field(record, "id"),
        question=question,
        answers=answers,
        dataset="flashrag",
        kind=kind,
        hops=len(hops) or None,
        titles=titles,
        decomposition=hops,
    )


def _answers(value: Any) -> tuple[str, ...]:
    if value is None:
        raise FieldError("golden_answers", "is missing")
    items = value if isinstance(value, list) else [value]
    texts = [clean_text(str(item), "golden_answers").strip() for item in items if item is not None]
    answers = tuple(dict.fromkeys(text for text in texts if text))
    if not answers:
        raise FieldError("golden_answers", "holds no answer")
    return answers


def _hops(question: str, answer: str, kind: str, metadata: dict[str, Any]) -> tuple[Hop, ...]:
    if metadata.get("question_decomposition"):
        return musique.decomposition(metadata)
    if metadata.get("supporting_facts"):
        facts = hotpotqa.supports(metadata)
        return hotpotqa.derive(question, answer, facts, comparison="comparison" in kind)
    return ()
