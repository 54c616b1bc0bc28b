"""`exsearch align`: the M-step."""

from __future__ import annotations

from typing import Annotated

import typer

from exsearch.cli.common import ConfigOption, DryRunOption, JsonOption, SetOption, settings
from exsearch.cli.training import tell_plan, tell_result


def main(
    config: ConfigOption = None,
    overrides: SetOption = None,
    iteration: Annotated[int, typer.Option("--iteration", "-t", min=1, help="Round, from 1.")] = 1,
    model: Annotated[
        str | None,
        typer.Option("--model", help="Model folder to start from; the newest of earlier rounds."),
    ] = None,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """M-step: tune the model on the weighted trajectories (the paper's procedure `align`).

    Reads `RUN/iter-NN/examples.jsonl`, which `exsearch weigh` wrote, and writes
    `RUN/iter-NN/train/checkpoint`. A killed run goes on from its last checkpoint.

    Example: `exsearch align --config run.yaml --iteration 1`
    """
    from exsearch.em.layout import RunFolder
    from exsearch.em.mstep import train, training_job

    run = settings(config, overrides)
    folder = RunFolder(run.run)
    stage = folder.iteration(iteration)
    start = model or folder.model_before(1 if run.em.from_base else iteration, run.model.path)
    if dry_run:
        tell_plan(training_job(run, run.align, start, stage), as_json)
        return
    tell_result(train(run, run.align, start, stage), as_json)
