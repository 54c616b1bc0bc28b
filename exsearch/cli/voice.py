"""How the loop speaks in a terminal: step titles, notes, one live line, the final table."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Any

from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column, Table

from exsearch.agent import runner


class ConsoleVoice:
    """A `Voice` on a rich console; draws one progress line per step that samples episodes."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._started = time.monotonic()
        self._bar: Progress | None = None

    def __enter__(self) -> ConsoleVoice:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end_bar()

    def step(self, title: str) -> None:
        self._end_bar()
        minutes, seconds = divmod(int(time.monotonic() - self._started), 60)
        self._console.print(f"[bold cyan]{title}[/] [dim]{minutes}:{seconds:02d}[/]")

    def note(self, text: str) -> None:
        self._end_bar()
        self._console.print(f"  {text}", markup=False)

    def progress(self, progress: runner.Progress) -> None:
        if self._bar is None:
            self._bar = Progress(
                TextColumn(" "),
                BarColumn(bar_width=8),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[line]}", table_column=Column()),  # may wrap
                console=self._console,
            )
            self._task = self._bar.add_task("", total=progress.questions, line="")
            self._bar.start()
        self._bar.update(self._task, completed=progress.done, line=progress.line())
        if progress.done == progress.questions:
            self._end_bar()

    def _end_bar(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def _interval(stage: dict[str, Any], metric: str) -> str:
    low, high = stage[f"{metric}_ci"]
    return f"{stage[metric]:.3f} [{low:.2f}, {high:.2f}]"


def _number(value: float | None, digits: int = 2) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def print_summary(console: Console, summary: dict[str, Any], report: str) -> None:
    """The stages on the same test questions, the comparisons, the gate, the report."""
    table = Table(
        title="The same unseen test questions, 95 % intervals; log p of the gold answer",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    for column in ("stage", "n", "EM", "F1", "log p", "steps", "failed"):
        table.add_column(column, justify="left" if column == "stage" else "right")
    for stage in summary["stages"]:
        table.add_row(
            stage["name"],
            str(stage["n"]),
            _interval(stage, "em"),
            _interval(stage, "f1"),
            _number(stage["log_marginal"]),
            _number(stage["steps"]),
            str(sum(stage["failures"].values())),
        )
    console.print(table)
    for c in summary["comparisons"]:
        low, high = c["ci"]
        console.print(
            f"{c['candidate']} against {c['champion']}: {c['metric']} {c['gain']:+.3f} "
            f"[{low:+.3f}, {high:+.3f}], p = {c['p']:.4f}",
            markup=False,
        )
    gate = summary["gate"]
    console.print(
        f"gate: {'promoted' if gate['promoted'] else 'kept the champion'}: {gate['reason']}"
    )
    console.print(f"champion: {summary['champion']}", markup=False)
    console.print(f"report: {report}", markup=False)
