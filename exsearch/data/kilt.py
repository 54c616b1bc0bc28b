"""KILT's JSON lines (Petroni et al., 2021).

`{"id", "input", "output": [{"answer", "provenance": [{"wikipedia_id", "title", …}]}]}`.
Every output with an answer gives an alias. Gold titles are those of the first output
that has provenance: the others are alternatives, not further hops. KILT's page ids are
not passage ids, so `pids` stays empty and retrieval is measured by title.
"""

from __future__ import annotations

from typing import Any

from exsearch.data.lines import FieldError, clean_text, list_field, text_field
from exsearch.records import Question


def parse(record: dict[str, Any]) -> Question:
    """One KILT record.

    Raises:
        FieldError: a field is missing or wrong, or no output has an answer (as in the
            unlabelled test sets).
    """
    outputs = list_field(record, "output")
    if any(not isinstance(output, dict) for output in outputs):
        raise FieldError("output", "must hold objects")
    found = [clean_text(str(o["answer"]), "output").strip() for o in outputs if o.get("answer")]
    answers = tuple(dict.fromkeys(answer for answer in found if answer))
    if not answers:
        raise FieldError("output", "holds no answer")
    titles = next((titles for output in outputs if (titles := _titles(output))), ())
    return Question(
        id=text_field(record, "id"),
        question=text_field(record, "input"),
        answers=answers,
        dataset="kilt",
        hops=len(titles) or None,
        titles=titles,
    )


def _titles(output: dict[str, Any]) -> tuple[str, ...]:
    provenance = output.get("provenance") or []
    if not isinstance(provenance, list) or any(not isinstance(p, dict) for p in provenance):
        raise FieldError("output.provenance", "must be a list of objects")
    titles = (clean_text(str(p["title"]), "title").strip() for p in provenance if p.get("title"))
    return tuple(dict.fromkeys(titles))
