"""Learning from use: which answers were given lately, and what people said of them.

Nothing is written unless `serving.learning.folder` is set. Then each verdict is one line in a
file of this server's own, which the pipeline's next run reads (`exsearch.data.feedback`).
"""

from __future__ import annotations

import importlib
import logging
import os
import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from exsearch.config import LearningConfig
from exsearch.data.feedback import Verdict, log_files, question_id
from exsearch.errors import InputError
from exsearch.serving.agent import Answered
from exsearch.serving.refusals import Refused
from exsearch.storage import is_remote

log = logging.getLogger(__name__)

REMEMBERED = 2_000
"""Answers that a verdict may still come for; the oldest are forgotten first."""
KNOWN = 10_000
"""Verdicts that are not written again."""

DAY = 86_400.0
"""Seconds."""

Redact = Callable[[str], str | None]
Text = Annotated[str, Field(min_length=1, max_length=1000)]


class FeedbackRequest(BaseModel):
    """`POST /feedback`."""

    model_config = ConfigDict(extra="forbid")
    request_id: Annotated[str, Field(min_length=1, max_length=100)]
    verdict: Literal["up", "down"]
    answers: list[Text] = Field(default_factory=list, max_length=20)
    """What is right, gold answer first, where the user knows."""


class Remembered:
    """The questions and answers of late, by request id."""

    def __init__(self, most: int = REMEMBERED) -> None:
        self._most = most
        self._held: OrderedDict[str, tuple[str, str]] = OrderedDict()

    def add(self, answered: Answered) -> None:
        self._held[answered.ask.request] = (answered.ask.question, answered.answer)
        self._held.move_to_end(answered.ask.request)
        while len(self._held) > self._most:
            self._held.popitem(last=False)

    def get(self, request: str) -> tuple[str, str]:
        """Question and answer.

        Raises:
            Refused: they are not known here (any more).
        """
        found = self._held.get(request)
        if found is None:
            raise Refused(
                "unknown_request",
                "request_id: this server remembers no such answer: it was given by another "
                f"replica, before a restart, or more than {self._most:,} answers ago",
            )
        return found


def redactor(name: str) -> Redact:
    """The function that `serving.learning.redact` names.

    Raises:
        InputError: it cannot be imported, or cannot be called.
    """
    if not name:
        return lambda text: text
    module, _, attribute = name.partition(":")
    try:
        found: object = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(
            f"serving.learning.redact: cannot import {name!r} ({error}); it must be "
            "package.module:function, and installed here"
        ) from error
    if not callable(found):
        raise InputError(f"serving.learning.redact: {name!r} is no function")
    return found  # type: ignore[return-value]


class LearningLog:
    """Verdicts on disk, one file after the other.

    Raises:
        InputError: the folder cannot be written to, or is on an object store, which cannot be
            appended to.
    """

    def __init__(self, config: LearningConfig) -> None:
        self._config = config
        self._redact = redactor(config.redact)
        self._known: OrderedDict[tuple[object, ...], None] = OrderedDict()
        self._file: Path | None = None
        self._begun = 0
        if not config.folder:
            return
        if is_remote(config.folder):
            raise InputError(
                f"serving.learning.folder must be a folder on a disk or a mounted volume, "
                f"not {config.folder}: an object store cannot be appended to"
            )
        try:
            Path(config.folder).mkdir(parents=True, exist_ok=True)
            self._begin()
        except OSError as error:
            raise InputError(f"serving.learning.folder cannot be used: {error}") from error

    @property
    def keeps(self) -> bool:
        return self._file is not None

    def write(self, question: str, answer: str, said: FeedbackRequest) -> bool:
        """Keep one verdict; gives whether it is on disk (a repeated one is there already).

        Raises:
            OSError: the disk is full, or gone.
        """
        if self._file is None:
            return False
        clean = [self._redact(text) for text in (question, answer, *said.answers)]
        if any(text is None or not text.strip() for text in clean):
            return False
        # A lone surrogate has no place in a file.
        question, answer, *gold = (str(t).encode(errors="replace").decode() for t in clean)
        verdict = Verdict(
            id=question_id(question),
            time=round(time.time(), 3),
            question=question,
            verdict=said.verdict,
            answer=answer,
            answers=tuple(gold),
        )
        key = (verdict.id, verdict.verdict, verdict.answer, verdict.answers)
        if key in self._known:
            return True
        if self._file.exists() and self._file.stat().st_size >= self._config.max_bytes:
            self._begin()
        self._append(verdict.to_line())
        self._known[key] = None
        if len(self._known) > KNOWN:
            self._known.popitem(last=False)
        return True

    def _append(self, line: str) -> None:
        """One write of one whole line: other readers never see half of it."""
        assert self._file is not None
        data = (line + "\n").encode()
        handle = os.open(self._file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            if os.write(handle, data) != len(data):
                raise OSError(f"{self._file}: only part of a line could be written")
        finally:
            os.close(handle)

    def _begin(self) -> None:
        """Name the next file (of this process alone) and delete what is too old or too much."""
        stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime())
        name = f"{stamp}-{os.uname().nodename}-{os.getpid()}-{self._begun:06}.jsonl"
        self._begun += 1
        self._file = Path(self._config.folder) / name
        files = [Path(path) for path in log_files(self._config.folder)]
        oldest = time.time() - self._config.retention_days * DAY
        surplus = max(0, len(files) + 1 - self._config.max_files)
        for number, path in enumerate(files):
            if number < surplus or path.stat().st_mtime < oldest:
                path.unlink(missing_ok=True)
                log.info("deleted old feedback", extra={"fields": {"file": path.name}})
