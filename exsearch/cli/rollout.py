"""`exsearch rollout`: sample trajectories."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated

import typer

from exsearch.cli.common import (
    ConfigOption,
    DryRunOption,
    JsonOption,
    SetOption,
    console,
    print_json,
    settings,
)

if TYPE_CHECKING:
    from exsearch.agent.runner import Progress
    from exsearch.config import RunConfig
    from exsearch.records import Question


def main(
    config: ConfigOption = None,
    overrides: SetOption = None,
    iteration: Annotated[int, typer.Option("--iteration", "-t", min=1, help="Round, from 1.")] = 1,
    shard: Annotated[
        str, typer.Option("--shard", help="Part of the questions: i/n, from 0.")
    ] = "0/1",
    model: Annotated[
        str | None,
        typer.Option("--model", help="Model to sample from; the newest of earlier rounds."),
    ] = None,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """E-step: sample K trajectories per question (the paper's procedure `inference`).

    Writes `RUN/iter-NN/rollouts/shard-III-of-NNN.jsonl`. A killed shard goes on
    where it stopped; shards may run on different machines.

    Example: `exsearch rollout --config run.yaml --iteration 1 --shard 0/4`
    """
    from exsearch.em.layout import RunFolder
    from exsearch.em.questions import load_questions, of_round
    from exsearch.em.rollouts import of_shard, parse_shard

    run = settings(config, overrides)
    index, count = parse_shard(shard)
    folder = RunFolder(run.run)
    questions = of_round(
        load_questions(run.data.train, run.data, "train", console.print),
        run.data.train_limit,
        iteration,
        run.seed,
    )
    mine = of_shard(questions, index, count)
    start = model or folder.model_before(iteration, run.model.path)
    path = folder.iteration(iteration).shard(index, count)
    facts = {
        "model": start,
        "questions": len(mine),
        "episodes": len(mine) * run.sampling.samples,
        "shard": path,
    }
    if not dry_run:
        progress = asyncio.run(_sample(run, start, mine, iteration, path))
        facts |= {
            "failures": dict(progress.failures),
            "inexact": progress.inexact,
            "seconds": round(progress.seconds, 3),
            "prefix_cache_hit_rate": progress.policy.hit_rate,
            "output_tokens": progress.policy.output_tokens,
        }
    if as_json:
        print_json(facts)
    for name, value in facts.items():
        console.print(f"{name}: {value}", markup=False)


async def _sample(
    run: RunConfig, model: str, questions: list[Question], iteration: int, path: str
) -> Progress:
    from exsearch.agent.runner import run_questions, sampled
    from exsearch.cli.voice import ConsoleVoice
    from exsearch.em.session import session
    from exsearch.storage import AppendLog

    with ConsoleVoice(console) as voice:
        voice.step("rollout")
        async with session(run, model) as setting:
            log = AppendLog(path)
            return await run_questions(
                questions, setting, sampled(run, iteration), log, voice.progress
            )
