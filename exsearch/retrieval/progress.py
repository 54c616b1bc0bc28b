"""One progress bar with an estimate of the time left, on stderr."""

from __future__ import annotations

import contextlib
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


class Display:
    """Bars on stderr, or nothing when `shown` is false."""

    def __init__(self, shown: bool = True) -> None:
        self._shown = shown

    @contextlib.contextmanager
    def bar(self, what: str, total: int | None, done: int = 0) -> Iterator[Advance]:
        """A bar; call the result with how much more is done.

        Args:
            total: units in all; None where nobody knows.
            done: units finished before (they do not count into the estimate).
        """
        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(elapsed_when_finished=False),
        )
        console = Console(stderr=True, quiet=not self._shown)
        with Progress(*columns, console=console, speed_estimate_period=120) as progress:
            task = progress.add_task(what, total=total, completed=done, rate="")

            def advance(count: int) -> None:
                progress.advance(task, count)
                speed = progress.tasks[0].speed
                progress.update(task, rate=f"{speed:.1f}/s" if speed else "")

            yield advance
