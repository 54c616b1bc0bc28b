"""Corpora: DPR's `psgs_w100.tsv` and JSON lines, streamed.

| format  | a record                                                                  |
|---------|---------------------------------------------------------------------------|
| `dpr`   | `id <tab> "text" <tab> title` under a header; quotes doubled inside       |
| `jsonl` | `{"id", "title", "text"}`, or FlashRAG's `{"id", "contents"}` with         |
|         | `contents` = `"title"`, a line's end, the text                            |

Both may be packed (`.gz`). What is done about odd content:

* NUL characters are dropped from titles and texts;
* a second passage with the same id is a bad line. Whole-number ids are remembered
  at one bit each (3 MB for all of Wikipedia), other ids at about 100 bytes each;
* an empty title is allowed, an empty text or id is a bad line.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from functools import partial
from typing import Any, Literal

from exsearch.data.lines import (
    FieldError,
    Raw,
    Skipped,
    clean_text,
    numbered_lines,
    parse_each,
    read_each,
    text_field,
)
from exsearch.errors import InputError
from exsearch.records import Passage

CorpusFormat = Literal["dpr", "jsonl"]
COLUMNS = ("id", "text", "title")
LONGEST_FIELD = 1 << 26
"""Characters in a TSV field; csv's own limit of 131,072 is below a long passage."""


def detect_corpus_format(path: str) -> CorpusFormat:
    """Tell the format by the first line.

    Raises:
        InputError: it is neither.
        StorageError: missing or unreadable.
    """
    first = next((line for _, line in numbered_lines(path)), "")
    if first.startswith(("{", "[")):
        return "jsonl"
    if set(COLUMNS) <= set(first.split("\t")):
        return "dpr"
    raise InputError(
        f"{path} is neither JSON lines with id, title and text (or contents) nor a "
        f"tab-separated file with the header {' '.join(COLUMNS)}: it begins {first[:80]!r}"
    )


def read_corpus(
    path: str, *, skip_bad: bool = False, report: Skipped | None = None
) -> Iterator[Passage]:
    """Passages of a corpus in either format, one at a time.

    Args:
        path: file or URL, packed or not.
        skip_bad: count bad lines into `report` and go on, instead of stopping at the first.

    Raises:
        BadLine: file, line and field at fault.
        InputError: neither format.
        StorageError: missing, unreadable or cut short.
    """
    unseen = _Unseen()

    def parse(record: dict[str, Any]) -> Passage:
        passage = _passage(record)
        unseen.check(passage.pid)
        return passage

    if detect_corpus_format(path) == "jsonl":
        return read_each(path, parse, skip_bad=skip_bad, report=report)
    return parse_each(path, _tsv(path), parse, skip_bad=skip_bad, report=report)


def _tsv(path: str) -> Iterator[Raw]:
    csv.field_size_limit(LONGEST_FIELD)
    lines = numbered_lines(path)
    header = next(lines)[1].split("\t")
    for number, line in lines:
        yield Raw(number, "line", partial(_columns, header, line))


def _columns(header: list[str], line: str) -> dict[str, Any]:
    """One line of the TSV. Lines are read singly, so that a stray quote spoils one, not all."""
    try:
        values = next(csv.reader([line], delimiter="\t", strict=True))
    except csv.Error as error:
        raise FieldError("(line)", f"has quotes that do not match ({error})") from None
    if len(values) != len(header):
        raise FieldError("(line)", f"has {len(values)} columns, not {len(header)}")
    return dict(zip(header, values, strict=True))


def _passage(record: dict[str, Any]) -> Passage:
    pid = text_field(record, "_id" if "id" not in record and "_id" in record else "id")
    title = record.get("title") or ""
    if "text" in record or "contents" not in record:
        text = text_field(record, "text")
    else:
        first, newline, text = text_field(record, "contents").partition("\n")
        title, text = title or (_unquoted(first) if newline else ""), text if newline else first
    if not isinstance(title, str):
        raise FieldError("title", f"must be text, not {type(title).__name__}")
    return Passage(pid=pid, title=clean_text(title, "title").strip(), text=text.strip())


def _unquoted(title: str) -> str:
    quoted = len(title) > 2 and title.startswith('"') and title.endswith('"')
    return title[1:-1] if quoted else title


class _Unseen:
    """Notices an id that comes a second time."""

    SMALL = 1 << 30
    _WHOLE = re.compile(r"0|[1-9][0-9]{0,9}")

    def __init__(self) -> None:
        self._bits = bytearray()
        self._others: set[str] = set()

    def check(self, pid: str) -> None:
        """Raises: FieldError, if `pid` was checked before."""
        if self._WHOLE.fullmatch(pid) and int(pid) < self.SMALL:
            byte, bit = divmod(int(pid), 8)
            if byte >= len(self._bits):
                self._bits.extend(bytes(byte + 1 + len(self._bits) // 8 - len(self._bits)))
            seen = self._bits[byte] >> bit & 1
            self._bits[byte] |= 1 << bit
        else:
            seen = pid in self._others
            self._others.add(pid)
        if seen:
            raise FieldError("id", f"{pid!r} was given to an earlier passage")
