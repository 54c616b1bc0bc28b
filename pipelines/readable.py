"""What `kfp.local` prints, made readable: which step runs, and what the step itself says."""

from __future__ import annotations

import io
import re
from typing import TextIO

_RECORD = re.compile(r"(\d\d:\d\d:\d\d)\.\d+ - (\w+) - (.*)")
"""A line of kfp.local's own: time, level, words."""
_EXECUTOR = re.compile(r"\[KFP Executor [^]]* (\w+)\]: (.*)")
"""A line of the process that runs a component: level, words."""
_COLOUR = re.compile(r"\x1b\[\d*m")
_INDENT = 4
"""Spaces by which kfp.local indents what a step prints."""


class Readable(io.TextIOBase):
    """A stream for kfp.local to print to.

    Shown: each step as it begins, whatever the step says, warnings and failures. Hidden: the
    settings that every component is given, its outputs' addresses, loading of libraries.

    Args:
        shown: where what is for people goes.
        everything: where all of it goes.
    """

    def __init__(self, shown: TextIO, everything: TextIO) -> None:
        self._shown, self._everything = shown, everything
        self._begun = ""
        """A line that has not ended."""
        self._streaming = False
        """What comes is a step's own output."""
        self._inputs = False
        """What comes is the JSON that a component is given."""

    def write(self, text: str) -> int:
        self._everything.write(text)
        *lines, self._begun = (self._begun + text).split("\n")
        for line in lines:
            words = self._words(_COLOUR.sub("", line))
            if words is not None:
                self._shown.write(f"{words}\n")
        return len(text)

    def flush(self) -> None:
        self._everything.flush()
        self._shown.flush()

    def _words(self, line: str) -> str | None:
        """What is shown of a line; None: nothing."""
        record = _RECORD.fullmatch(line)
        if record is not None:
            return self._of_record(*record.groups())
        if not self._streaming:
            return None
        said = line[_INDENT:] if line.startswith(" " * _INDENT) else line
        if self._inputs:
            self._inputs = said != "}"
            return None
        executor = _EXECUTOR.fullmatch(said)
        if executor is not None:
            level, words = executor.groups()
            self._inputs = words.startswith("Got executor_input")
            return words if level not in ("INFO", "DEBUG") else None
        if not said.strip() or said.startswith("ModuleNotFoundError(\"No module named 'faiss."):
            return None  # faiss tries processors' builds that its wheel does not hold
        return f"  {said}"

    def _of_record(self, time: str, level: str, words: str) -> str | None:
        self._streaming = words.startswith("Streamed logs")
        if words.startswith("Executing task"):
            return f"{time} {words.removeprefix('Executing task ').strip(chr(39))}"
        return words if level not in ("INFO", "DEBUG") else None
