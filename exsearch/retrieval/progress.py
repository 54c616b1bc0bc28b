"""One progress bar with an estimate of the time left, on stderr; lines where there is no
terminal (a pod's log)."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

Advance = Callable[[int], None]
EVERY = 15.0
"""Seconds between two lines of a log."""


class Display:
    """Progress on stderr, or nothing when `shown` is false."""

    def __init__(self, shown: bool = True) -> None:
        self._console = Console(stderr=True, quiet=not shown, highlight=False)

    @contextlib.contextmanager
    def bar(self, what: str, total: int | None, done: int = 0) -> Iterator[Advance]:
        """A bar; call the result with how much more is done.

        Args:
            total: units in all; None where nobody knows.
            done: units finished before (they do not count into the estimate).
        """
        if not self._console.is_terminal:
            yield _Lines(self._console, what, total, done).advance
            return
        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=self._console, speed_estimate_period=120) as progress:
            task = progress.add_task(what, total=total, completed=done, rate="")

            def advance(count: int) -> None:
                progress.advance(task, count)
                speed = progress.tasks[0].speed
                progress.update(task, rate=f"{speed:.1f}/s" if speed else "")

            yield advance


class _Lines:
    """The same as lines of text, one now and then."""

    def __init__(self, console: Console, what: str, total: int | None, done: int) -> None:
        self._console, self._what, self._total = console, what, total
        self._before = self._done = done
        self._start = self._last = time.monotonic()

    def advance(self, count: int) -> None:
        self._done += count
        now = time.monotonic()
        if now - self._last < EVERY and self._done != self._total:
            return
        self._last = now
        rate = (self._done - self._before) / max(now - self._start, 1e-9)
        line = f"{self._what}: {self._done:,}"
        if self._total is not None:
            line += f" of {self._total:,}"
        line += f", {rate:.1f}/s"
        if self._total is not None and rate > 0:
            line += f", {(self._total - self._done) / rate:.0f} s left"
        self._console.print(line, markup=False)
