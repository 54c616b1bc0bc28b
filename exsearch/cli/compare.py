"""`exsearch compare`: two evaluations on the same questions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from exsearch.cli import common

if TYPE_CHECKING:
    from exsearch.evaluation.compare import Report


def main(
    candidate: Annotated[
        str, typer.Argument(metavar="A", help="An evaluation folder, or a predictions file.")
    ],
    champion: Annotated[
        str, typer.Argument(metavar="B", help="What A is compared with: another of either kind.")
    ],
    questions: Annotated[
        str | None,
        typer.Option("--questions", help="Question file, needed for predictions files."),
    ] = None,
    config: common.ConfigOption = None,
    overrides: common.SetOption = None,
    as_json: common.JsonOption = False,
) -> None:
    """Say how much better A is than B, by paired bootstrap on the same questions.

    A and B are folders that `exsearch evaluate` wrote (or a run's stages), or files of
    `{"id","answer"}` lines with `--questions`. Gains are A − B; p is two-sided.

    Example: `exsearch compare runs/demo/iter-02 runs/demo/warmup`
    """
    from exsearch.data.questions import read_questions
    from exsearch.evaluation import compare

    run = common.settings(config, overrides)
    asked = None if questions is None else list(read_questions(questions, run.data.format))
    sides = compare.load_side(candidate, asked), compare.load_side(champion, asked)
    report = compare.compare(
        *sides,
        names=compare.told_apart(*sides, (candidate, champion)),
        bootstrap=run.evaluation.bootstrap,
        confidence=run.evaluation.confidence,
        seed=run.seed,
    )
    if as_json:
        common.print_json(report.document())
    else:
        _show(report, run.evaluation.confidence)


def _show(report: Report, confidence: float) -> None:
    from rich.table import Table

    table = Table("Metric", report.candidate.name, report.champion.name)
    for heading in ("Gain", f"{confidence:.0%} interval", "p", "n"):
        table.add_column(heading, justify="right")
    for c in report.comparisons:
        ours, theirs = (getattr(s, c.metric) for s in (report.candidate, report.champion))
        table.add_row(
            c.metric,
            f"{ours:.3f}",
            f"{theirs:.3f}",
            f"{c.gain:+.3f}",
            f"{c.ci[0]:+.3f} to {c.ci[1]:+.3f}",
            f"{c.p:.4f}",
            str(c.n),
        )
    common.console.print(table)
