"""The log of a served agent, read as a question set: a folder of JSON lines, folded by question.

Each line is one verdict on one answer. The latest verdict on a question counts: a gold answer or
a thumb up makes it a training question, a thumb down takes it out again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Literal

from pydantic import Field

from exsearch import storage
from exsearch.data.lines import Skipped
from exsearch.errors import BadLine
from exsearch.records import Question, Record, parse_line


class Verdict(Record):
    """What one user said of one answer."""

    id: str = Field(min_length=1)
    """Digest of the question's words: the same question, the same id."""
    time: float
    """Seconds since the epoch."""
    question: str = Field(min_length=1)
    verdict: Literal["up", "down"]
    answer: str
    """What the agent said."""
    answers: tuple[str, ...] = ()
    """What the user says is right, where they said so."""

    @property
    def gold(self) -> tuple[str, ...]:
        """Answers that count as right: the user's own, else the agent's where it was approved."""
        return self.answers or ((self.answer,) if self.verdict == "up" else ())


def question_id(question: str) -> str:
    """Equal for questions that differ in case and spaces only."""
    words = " ".join(question.casefold().split())
    return "use-" + hashlib.sha256(words.encode(errors="replace")).hexdigest()[:16]


def is_log(path: str) -> bool:
    """Whether a question set is such a log: a folder, or a path that ends in a slash (which may
    not be there yet: nobody has said anything)."""
    if path.endswith("/"):
        return True
    fs, key = storage.filesystem(path)
    with storage.explained(path, "look for"):
        return bool(fs.isdir(key))


def log_files(folder: str) -> list[str]:
    """The log's files by name, which is by their beginning; none where there is no folder."""
    fs, key = storage.filesystem(folder)
    with storage.explained(folder, "list"):
        found = sorted(fs.glob(f"{key.rstrip('/')}/*.jsonl"))
    return [fs.unstrip_protocol(path) if storage.is_remote(folder) else path for path in found]


def read_log(
    folder: str, *, skip_bad: bool = False, report: Skipped | None = None
) -> Iterator[Question]:
    """The questions of a log, oldest first.

    Raises:
        BadLine: a line is no verdict (without `skip_bad`). A file's last line may be cut short,
            where a server was killed: it is passed over.
        StorageError: unreadable.
    """
    latest: dict[str, Verdict] = {}
    for path in log_files(folder):
        for verdict in _verdicts(path, skip_bad, report):
            held = latest.get(verdict.id)
            if held is None or verdict.time >= held.time:
                latest[verdict.id] = verdict
    for verdict in sorted(latest.values(), key=lambda v: v.time):
        if verdict.gold:
            yield Question(
                id=verdict.id, question=verdict.question, answers=verdict.gold, dataset="use"
            )


def _verdicts(path: str, skip_bad: bool, report: Skipped | None) -> Iterator[Verdict]:
    *whole, _ = storage.read_text(path).split("\n")  # what follows the last line's end is cut
    for number, line in enumerate(whole, 1):
        try:
            yield parse_line(Verdict, line, path, number)
        except BadLine as bad:
            if not skip_bad:
                raise
            if report is not None:
                report.note(bad)
