"""Reading input files one record at a time, and saying precisely what is wrong with one.

A record is a line of JSON or an element of one big JSON array; whichever it is,
only that one is held in memory.
"""

from __future__ import annotations

import contextlib
import json
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from io import TextIOWrapper
from typing import IO, Any, TypeVar

import ijson

from exsearch import storage
from exsearch.errors import BadLine, StorageError

T = TypeVar("T")


class FieldError(ValueError):
    """A field of one record is missing or wrong; the reader adds file and line."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}")
        self.field, self.problem = field, problem


@dataclass
class Skipped:
    """What `skip_bad` passed over: how many by field, and the first few in full."""

    counts: Counter[str] = field(default_factory=Counter)
    examples: list[str] = field(default_factory=list)
    shown: int = 3

    @property
    def total(self) -> int:
        return self.counts.total()

    def note(self, error: BadLine) -> None:
        self.counts[error.field] += 1
        if len(self.examples) < self.shown:
            where = f"{error.source}, {error.unit} {error.line}"
            self.examples.append(f"{where}, field '{error.field}': {error.problem}")

    def summary(self) -> str:
        """One sentence for people, empty if nothing was skipped."""
        if not self.total:
            return ""
        fields = ", ".join(f"{name}: {count}" for name, count in self.counts.most_common())
        return f"skipped {self.total} bad records ({fields}); first: " + "; ".join(self.examples)


@dataclass(frozen=True)
class Raw:
    """One record before it is understood; `load` may find that it is not even JSON."""

    number: int
    """Line, or element of the array, counted from 1."""
    unit: str
    load: Callable[[], Any]


def read_each(
    path: str, parse: Callable[[dict[str, Any]], T], *, skip_bad: bool, report: Skipped | None
) -> Iterator[T]:
    """Read a JSON-lines file or a JSON array through `parse`, one record at a time.

    Args:
        parse: makes the record, or raises FieldError.
        skip_bad: count bad records into `report` and go on.

    Raises:
        BadLine: at a bad record (without `skip_bad`), or where an array is no longer JSON.
        StorageError: missing or unreadable.
    """
    raws = _array(path) if is_array(path) else _lines(path)
    return parse_each(path, raws, parse, skip_bad=skip_bad, report=report)


def parse_each(
    path: str,
    raws: Iterator[Raw],
    parse: Callable[[dict[str, Any]], T],
    *,
    skip_bad: bool,
    report: Skipped | None,
) -> Iterator[T]:
    """Parse raw records; a FieldError becomes a BadLine that is raised, or counted."""
    for raw in raws:
        try:
            item = parse(_mapping(raw.load()))
        except FieldError as error:
            bad = BadLine(path, raw.number, error.field, error.problem, raw.unit)
            if not skip_bad:
                raise bad from None
            if report is not None:
                report.note(bad)
            continue
        yield item


def first_record(path: str) -> dict[str, Any]:
    """The first record, to tell the format by.

    Raises:
        BadLine: the file is empty or does not begin with a JSON object.
    """
    for record in read_each(path, lambda value: value, skip_bad=False, report=None):
        return record
    raise BadLine(path, 1, "(line)", "the file holds no records")


def numbered_lines(path: str) -> Iterator[tuple[int, str]]:
    """Lines with their numbers from 1, without line ends; blank ones are passed over.

    A byte that is not UTF-8 arrives as a lone surrogate, which `clean_text` refuses, so
    that one bad line does not end the reading.

    Raises:
        StorageError: missing, unreadable, or a compressed file that breaks off.
    """
    with _reading(path) as file:
        for number, line in enumerate(file, 1):
            line = line.removeprefix("\ufeff") if number == 1 else line
            if line.strip():
                yield number, line.rstrip("\r\n")


def is_array(path: str) -> bool:
    """True when the file is one JSON array rather than lines."""
    return next((line.lstrip().startswith("[") for _, line in numbered_lines(path)), False)


def clean_text(text: str, field: str) -> str:
    """The text without NUL characters (no engine or index takes them).

    Raises:
        FieldError: it holds bytes that are not UTF-8.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        raise FieldError(field, "holds bytes that are not UTF-8") from None
    return text.replace("\0", "")


def text_field(record: dict[str, Any], name: str) -> str:
    """A field that must be a non-empty string (a number counts, as its digits).

    Raises:
        FieldError: missing, of another type, empty, or not UTF-8.
    """
    value = record.get(name)
    if value is None:
        raise FieldError(name, "is missing")
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise FieldError(name, f"must be text, not {type(value).__name__}")
    text = clean_text(str(value), name).strip()
    if not text:
        raise FieldError(name, "is empty")
    return text


def list_field(record: dict[str, Any], name: str) -> list[Any]:
    """A field that must be a list.

    Raises:
        FieldError: missing or of another type.
    """
    value = record.get(name)
    if not isinstance(value, list):
        raise FieldError(name, "is missing" if value is None else "must be a list")
    return value


def _lines(path: str) -> Iterator[Raw]:
    for number, line in numbered_lines(path):
        yield Raw(number, "line", lambda line=line: _loads(line))


def _loads(line: str) -> Any:
    try:
        return json.loads(line)
    except (json.JSONDecodeError, RecursionError) as error:
        raise FieldError("(line)", f"is not JSON ({error})") from None


def _array(path: str) -> Iterator[Raw]:
    number = 0
    with _reading(path) as file:
        assert isinstance(file, TextIOWrapper)
        try:
            for number, value in enumerate(ijson.items(file.buffer, "item", use_float=True), 1):
                yield Raw(number, "element", lambda value=value: value)
        except ijson.JSONError as error:
            problem = f"the array is not JSON from here on ({error})"
            raise BadLine(path, number + 1, "(element)", problem, "element") from None


def _mapping(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise FieldError("(record)", f"must be a JSON object, not {type(value).__name__}")
    return value


@contextlib.contextmanager
def _reading(path: str) -> Iterator[IO[str]]:
    with storage.explained(path, "read"), storage.open_text(path) as file:
        if isinstance(file, TextIOWrapper):
            file.reconfigure(errors="surrogateescape")
        try:
            yield file
        except (EOFError, zlib.error) as error:
            raise StorageError(
                f"{path} breaks off: {error}. It was cut short or damaged; fetch it again."
            ) from error
