"""`exsearch weigh`: answer likelihoods become posterior weights."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated

import typer

from exsearch.cli.common import (
    ConfigOption,
    JsonOption,
    SetOption,
    console,
    print_json,
    settings,
)

if TYPE_CHECKING:
    from exsearch.config import RunConfig
    from exsearch.em.layout import Stage
    from exsearch.records import Question


def main(
    config: ConfigOption = None,
    overrides: SetOption = None,
    iteration: Annotated[int, typer.Option("--iteration", "-t", min=1, help="Round, from 1.")] = 1,
    score: Annotated[
        bool, typer.Option("--score", help="Score the answers anew, with the model that sampled.")
    ] = False,
    model: Annotated[
        str | None,
        typer.Option("--model", help="The model that sampled; the newest of earlier rounds."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """E-step: weigh trajectories by how probable the gold answer is (procedure `entropy`).

    Reads all shards of `RUN/iter-NN/rollouts`, writes `weights.jsonl`, `examples.jsonl`
    and `estep.json` beside them. Rollouts carry the answers' log-probabilities
    already; `--score` computes them again (resumable) for rollouts that do not.

    Example: `exsearch weigh --config run.yaml --iteration 1`
    """
    from exsearch.agent.chat import ChatFormat
    from exsearch.em.layout import RunFolder
    from exsearch.em.questions import load_questions
    from exsearch.em.weighing import weigh

    run = settings(config, overrides)
    folder = RunFolder(run.run)
    stage = folder.iteration(iteration)
    sampler = model or folder.model_before(iteration, run.model.path)
    questions = {q.id: q for q in load_questions(run.data.train, run.data, "train", console.print)}
    if score:
        asyncio.run(_score(run, sampler, stage, questions))
    statistics = weigh(questions, stage, ChatFormat.load(sampler), run.weighing, run.seed)
    facts = statistics.model_dump(mode="json")
    if as_json:
        print_json(facts)
    for name, value in facts.items():
        console.print(f"{name}: {value}", markup=False)


async def _score(run: RunConfig, model: str, stage: Stage, questions: dict[str, Question]) -> None:
    from rich.progress import Progress

    from exsearch.em.session import session
    from exsearch.em.weighing import score_rollouts

    with Progress(console=console) as bars:
        bar = bars.add_task("scoring", total=None)
        async with session(run, model) as setting:
            await score_rollouts(
                questions,
                stage,
                setting,
                lambda done: bars.update(bar, completed=done),
                run.policy.concurrency,
            )
