"""`exsearch sft`: warm-up tuning."""

from __future__ import annotations

from typing import Annotated

import typer

from exsearch.cli.common import ConfigOption, DryRunOption, JsonOption, SetOption, settings
from exsearch.cli.training import tell_plan, tell_result


def main(
    config: ConfigOption = None,
    overrides: SetOption = None,
    model: Annotated[
        str | None, typer.Option("--model", help="Model folder to start from; model.path.")
    ] = None,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Tune a model on the warm-up set (the paper's procedure `sft`).

    Reads `RUN/warmup/demonstrations.jsonl` (or `conversations.jsonl`) and writes
    `RUN/warmup/train/checkpoint`. A killed run goes on from its last checkpoint.

    Example: `exsearch sft --config run.yaml --set sft.learning_rate=5e-5`
    """
    from exsearch.agent.chat import ChatFormat
    from exsearch.em.layout import RunFolder
    from exsearch.em.mstep import train, training_job
    from exsearch.em.warmup import write_examples

    run = settings(config, overrides)
    stage = RunFolder(run.run).stage("warmup")
    start = model or run.model.path
    write_examples(run, stage, ChatFormat.load(start))
    if dry_run:
        tell_plan(training_job(run, run.sft, start, stage), as_json)
        return
    tell_result(train(run, run.sft, start, stage), as_json)
