"""The warm-up step's files: question sets in, `RUN/warmup/*.jsonl` out."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from exsearch import storage
from exsearch.config import RunConfig
from exsearch.data.lines import Skipped
from exsearch.data.messages import read_conversations
from exsearch.data.questions import detect_format, read_questions
from exsearch.data.warmup import Search, WarmupReport, WarmupRule, make_demonstrations
from exsearch.errors import InputError
from exsearch.records import Question, Record

DEMONSTRATIONS = "demonstrations.jsonl"
CONVERSATIONS = "conversations.jsonl"


@dataclass
class WarmupFiles:
    """What the step read and wrote."""

    formats: dict[str, str] = field(default_factory=dict)
    """Format of each file read, as stated or detected."""
    skipped: Skipped = field(default_factory=Skipped)
    path: str = ""
    """The file written."""
    written: int = 0

    def document(self, report: WarmupReport | None = None) -> dict[str, Any]:
        """For `--json`."""
        whole = {"path": self.path, "written": self.written, "formats": self.formats}
        whole["skipped"] = dict(self.skipped.counts)
        return whole | ({} if report is None else {"report": report.document()})


def warmup_rule(config: RunConfig) -> WarmupRule:
    """The rule that a run's settings spell out."""
    data = config.data
    return WarmupRule(
        k=config.agent.passages,
        limit=data.warmup_limit,
        hops=data.warmup_hops,
        seed=config.seed,
        missing=data.warmup_missing,
        min_overlap=data.warmup_min_overlap,
    )


def warmup_questions(config: RunConfig, files: WarmupFiles) -> Iterator[Question]:
    """Questions of all `data.warmup` files.

    Raises:
        InputError: none is named, or one cannot be read as stated.
    """
    data = config.data
    if not data.warmup:
        raise InputError("no warm-up questions: name question files in data.warmup")
    for path in data.warmup:
        name = detect_format(path) if data.format == "auto" else data.format
        files.formats[path] = name
        yield from read_questions(path, name, skip_bad=data.skip_bad, report=files.skipped)


def synthesize(
    config: RunConfig,
    search: Search,
    out: str = "",
    *,
    progress: Callable[[int, int], None] = lambda done, wanted: None,
) -> tuple[WarmupFiles, WarmupReport]:
    """Make demonstrations from `data.warmup` and write them.

    Args:
        out: file to write; empty: `RUN/warmup/demonstrations.jsonl`.

    Raises:
        InputError: nothing to read, or not one demonstration could be made.
        StorageError: the file cannot be written.
    """
    files = WarmupFiles()
    questions = warmup_questions(config, files)
    made, report = make_demonstrations(questions, search, warmup_rule(config), progress=progress)
    if not made:
        reasons = ", ".join(f"{why}: {n}" for why, n in report.dropped.items()) or "no questions"
        raise InputError(
            f"no demonstration could be made of {report.read} questions ({reasons}). Check that "
            "the index holds their gold passages, or set data.warmup_missing=insert"
        )
    _write(files, made, out or storage.join(config.run, "warmup", DEMONSTRATIONS))
    return files, report


def import_messages(config: RunConfig, path: str, out: str = "") -> WarmupFiles:
    """Bring in the authors' conversations, at most `data.warmup_limit` of them.

    Args:
        out: file to write; empty: `RUN/warmup/conversations.jsonl`.

    Raises:
        InputError: broken, or empty.
        StorageError: cannot be read or written.
    """
    files = WarmupFiles(formats={path: "messages"})
    read = read_conversations(path, skip_bad=config.data.skip_bad, report=files.skipped)
    conversations = list(itertools.islice(read, config.data.warmup_limit))
    if not conversations:
        raise InputError(f"{path} holds no conversation that could be read")
    _write(files, conversations, out or storage.join(config.run, "warmup", CONVERSATIONS))
    return files


def survey(config: RunConfig) -> tuple[WarmupFiles, Counter[int]]:
    """Questions by number of known hops (0: none known), without searching or writing."""
    files = WarmupFiles()
    counts = Counter(len(q.decomposition) for q in warmup_questions(config, files))
    return files, counts


def _write(files: WarmupFiles, records: Iterable[Record], path: str) -> None:
    lines = [record.to_line() + "\n" for record in records]
    storage.write_atomic(path, "".join(lines))
    files.path, files.written = path, len(lines)
