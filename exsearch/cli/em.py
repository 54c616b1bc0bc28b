"""`exsearch em`: the whole loop."""

from __future__ import annotations

import asyncio

from exsearch.cli.common import ConfigOption, JsonOption, SetOption, console, print_json, settings


def main(
    config: ConfigOption = None, overrides: SetOption = None, as_json: JsonOption = False
) -> None:
    """Run the whole loop: index, warm-up, rounds of E-step and M-step, evaluation, gate.

    The same command goes on with a run that was stopped. It ends with a table of
    all stages on the same test questions and the path of the report.

    Example:

        exsearch em --config examples/demo.yaml --set em.iterations=3
    """
    from exsearch.cli.voice import ConsoleVoice, print_summary
    from exsearch.em.loop import Loop
    from exsearch.evaluation.report import write_report

    run = settings(config, overrides)
    with ConsoleVoice(console) as voice:
        summary = asyncio.run(Loop(run, voice).run())
    report = write_report(run.run)
    if as_json:
        print_json(summary)
    print_summary(console, summary, report)
