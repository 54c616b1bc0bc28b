"""What an engine says while it starts and runs, kept in a file instead of the terminal."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LAST_LINES = 12


class EngineLog:
    """A temporary file for the words of one engine and of its child processes."""

    def __init__(self) -> None:
        handle, name = tempfile.mkstemp(prefix="exsearch-engine-", suffix=".log")
        os.close(handle)
        self.path = Path(name)

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Within, stdout and stderr go to the file, by descriptor.

        Processes started within inherit it and go on writing there for all their life:
        engines print from C++ and from children, where no logging setting reaches.
        """
        sys.stdout.flush()
        sys.stderr.flush()
        kept = [(fd, os.dup(fd)) for fd in (1, 2)]
        sink = os.open(self.path, os.O_WRONLY | os.O_APPEND)
        try:
            for fd, _ in kept:
                os.dup2(sink, fd)
            yield
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            for fd, copy in kept:
                os.dup2(copy, fd)
                os.close(copy)
            os.close(sink)

    def end(self) -> str:
        """The last lines, for an error message."""
        lines = self.path.read_text(encoding="utf-8", errors="replace").splitlines()
        return "\n".join(line for line in lines[-LAST_LINES:] if line.strip())

    def remove(self) -> None:
        """Delete the file; what still writes to it writes to nobody."""
        self.path.unlink(missing_ok=True)
