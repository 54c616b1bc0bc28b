"""Question sets in the formats they are published in, read as one kind of record.

| format     | told by                            | gold titles, decomposition from            |
|------------|------------------------------------|--------------------------------------------|
| `exsearch` | `answers`                          | itself                                     |
| `hotpotqa` | `supporting_facts`                 | supporting facts                           |
| `2wiki`    | `supporting_facts` and `evidences` | supporting facts and evidence triples      |
| `musique`  | `question_decomposition`           | sub-questions and their paragraphs         |
| `flashrag` | `golden_answers`                   | `metadata`, where it keeps one of the above|
| `kilt`     | `input` and `output`               | provenance (titles alone)                  |

Each may be JSON lines or one JSON array, packed (`.gz`) or not. A folder (or a path that ends in
a slash) is a served agent's log of verdicts, see `exsearch.data.feedback`. A range after the path
takes some of a file's questions: `hotpot_dev.json[0:500]`, counted from 0, end excluded.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator
from typing import Any

from pydantic import ValidationError

from exsearch.data import feedback, flashrag, hotpotqa, kilt, musique
from exsearch.data.lines import FieldError, Skipped, first_record, read_each
from exsearch.errors import InputError
from exsearch.records import Question


def _own(record: dict[str, Any]) -> Question:
    try:
        return Question.model_validate(record)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "(record)"
        raise FieldError(field, first["msg"]) from None


PARSERS: dict[str, Callable[[dict[str, Any]], Question]] = {
    "exsearch": _own,
    "hotpotqa": hotpotqa.parse_hotpotqa,
    "2wiki": hotpotqa.parse_2wiki,
    "musique": musique.parse,
    "flashrag": flashrag.parse,
    "kilt": kilt.parse,
}
SIGNS: tuple[tuple[str, frozenset[str]], ...] = (
    ("2wiki", frozenset({"supporting_facts", "evidences"})),
    ("hotpotqa", frozenset({"supporting_facts"})),
    ("musique", frozenset({"question_decomposition"})),
    ("flashrag", frozenset({"golden_answers"})),
    ("kilt", frozenset({"input", "output"})),
    ("exsearch", frozenset({"question", "answers"})),
)
"""Keys that only records of a format have, the most telling first."""


_RANGE = re.compile(r"^(?P<path>.+)\[(?P<start>\d*):(?P<stop>\d*)\]$")


def split_range(path: str) -> tuple[str, slice]:
    """`file[a:b]` as the file and its range; a path without one is the whole file."""
    match = _RANGE.match(path)
    if match is None:
        return path, slice(None)
    start, stop = (int(match[name]) if match[name] else None for name in ("start", "stop"))
    return match["path"], slice(start, stop)


def detect_format(path: str) -> str:
    """Tell a question file's format by its first record.

    Raises:
        InputError: no known format has these keys (BadLine: the record is no JSON object).
        StorageError: missing or unreadable.
    """
    keys = first_record(split_range(path)[0]).keys()
    for name, signs in SIGNS:
        if signs <= keys:
            return name
    raise InputError(
        f"{path}: cannot tell the format of a record with the keys {', '.join(sorted(keys))}. "
        f"Known formats: {', '.join(PARSERS)}. If it is one of these, name it (data.format)."
    )


def read_questions(
    path: str, format: str = "auto", *, skip_bad: bool = False, report: Skipped | None = None
) -> Iterator[Question]:
    """Questions of a file in any known format, one at a time.

    Args:
        path: file or URL, packed or not, with or without a range.
        format: a key of `PARSERS`, or "auto" to detect it.
        skip_bad: count bad records into `report` and go on, instead of stopping at the first.

    Raises:
        BadLine: file, line (or element of the array) and field at fault; also for a second
            question with the same id.
        InputError: unknown format.
        StorageError: missing or unreadable.
    """
    file, part = split_range(path)
    if feedback.is_log(file):
        questions = feedback.read_log(file, skip_bad=skip_bad, report=report)
        return itertools.islice(questions, part.start, part.stop)
    name = detect_format(path) if format == "auto" else format
    if name not in PARSERS:
        raise InputError(f"unknown question format {name!r}; known: auto, {', '.join(PARSERS)}")
    parser = PARSERS[name]
    seen: set[str] = set()

    def parse(record: dict[str, Any]) -> Question:
        question = parser(record)
        if question.id in seen:
            raise FieldError("id", f"{question.id!r} was given to an earlier question")
        seen.add(question.id)
        return question

    read = read_each(file, parse, skip_bad=skip_bad, report=report)
    return itertools.islice(read, part.start, part.stop)
