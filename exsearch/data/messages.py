"""The authors' released warm-up conversations: JSON with a list of `messages`.

Two kinds come mixed, and both are imitated as they stand: whole trajectories
(`<QUERY> …`, `<SEARCH> [0] Title: …`, `<FACT> …`, `<FINAL>`, the answer) and single
turns that select passages. Two slips of the released files are mended: a key spelt
`content:`, and a literal `{question}` left in the closing turn, which is filled from the
line `<USER QUERY> …` of the first.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any, get_args

from exsearch.data.lines import FieldError, Skipped, clean_text, list_field, read_each
from exsearch.records import Conversation, Message, Role

PLACEHOLDER = "{question}"
_QUESTION = re.compile(r"<USER QUERY>[ \t]*(\S.*)")


def read_conversations(
    path: str, *, skip_bad: bool = False, report: Skipped | None = None
) -> Iterator[Conversation]:
    """Conversations of a `messages` file (a JSON array or JSON lines), one at a time.

    Each is named after the file and its place: `hotpot-traj.100/7`.

    Args:
        skip_bad: count bad records into `report` and go on, instead of stopping at the first.

    Raises:
        BadLine: file, element (or line) and field at fault.
        StorageError: missing or unreadable.
    """
    stem = re.sub(r"\.jsonl?(\.\w+)?$", "", PurePosixPath(path).name)
    place = 0

    def parse(record: dict[str, Any]) -> Conversation:
        nonlocal place
        place += 1
        return Conversation(id=f"{stem}/{place}", messages=_messages(record))

    return read_each(path, parse, skip_bad=skip_bad, report=report)


def _messages(record: dict[str, Any]) -> tuple[Message, ...]:
    turns = [_turn(turn, place) for place, turn in enumerate(list_field(record, "messages"))]
    if len(turns) < 2:
        raise FieldError("messages", "holds fewer than two turns")
    if turns[-1].role != "assistant":
        raise FieldError("messages", f"ends with a turn of the {turns[-1].role}: nothing to learn")
    return tuple(_filled(turns))


def _turn(turn: Any, place: int) -> Message:
    where = f"messages.{place}"
    if not isinstance(turn, dict):
        raise FieldError(where, f"must be an object, not {type(turn).__name__}")
    if turn.get("role") not in get_args(Role):
        known = ", ".join(get_args(Role))
        raise FieldError(f"{where}.role", f"{turn.get('role')!r} is none of {known}")
    content = turn.get("content", turn.get("content:"))
    if not isinstance(content, str):
        raise FieldError(f"{where}.content", "is missing" if content is None else "must be text")
    if not content.strip():
        raise FieldError(f"{where}.content", "is empty")
    text = clean_text(content, f"{where}.content")
    return Message.model_validate({"role": turn["role"], "content": text})


def _filled(turns: list[Message]) -> list[Message]:
    """The turns, with the placeholder of the closing user turn replaced by the question."""
    place = max((n for n, turn in enumerate(turns) if turn.role == "user"), default=None)
    if place is None or PLACEHOLDER not in turns[place].content:
        return turns
    asked = next((m[1].strip() for t in turns[:2] if (m := _QUESTION.search(t.content))), None)
    if asked is None:
        raise FieldError(
            f"messages.{place}.content",
            f"holds {PLACEHOLDER}, and no earlier turn says <USER QUERY> what it is",
        )
    content = turns[place].content.replace(PLACEHOLDER, asked)
    return [
        *turns[:place],
        turns[place].model_copy(update={"content": content}),
        *turns[place + 1 :],
    ]
