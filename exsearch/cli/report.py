"""`exsearch report`: a run as one HTML page."""

from __future__ import annotations

from typing import Annotated

import typer

from exsearch.cli import common


def main(
    run: Annotated[str, typer.Argument(metavar="RUN", help="The run's folder.")],
    out: Annotated[
        str | None, typer.Option("--out", help="File to write, instead of RUN/report.html.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option("--seed", help="Chooses the episodes shown; default: the run's.")
    ] = None,
    as_json: common.JsonOption = False,
) -> None:
    """Write RUN/report.html: figures, curves, and every chosen episode to read.

    The file needs no network and nothing beside it. With `--json` nothing is written;
    the run's `summary.json` goes to stdout.

    Example: `exsearch report runs/demo`
    """
    from exsearch.evaluation.report import write_report
    from exsearch.storage import join, read_json

    if as_json:
        common.print_json(read_json(join(run, "summary.json")))
        return
    common.console.print(write_report(run, out=out, seed=seed), markup=False, soft_wrap=True)
