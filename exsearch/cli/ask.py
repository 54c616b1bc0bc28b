"""`exsearch ask`: one question, watched."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from exsearch.cli.common import (
    ConfigOption,
    JsonOption,
    SetOption,
    console,
    print_json,
    settings,
)
from exsearch.errors import ExSearchError, InputError

if TYPE_CHECKING:
    from exsearch.agent.episode import EpisodeResult, Event
    from exsearch.config import RunConfig


def main(
    question: Annotated[str, typer.Argument(help="The question.")],
    run_folder: Annotated[
        str | None, typer.Option("--run", help="A run folder: its settings and its champion.")
    ] = None,
    config: ConfigOption = None,
    overrides: SetOption = None,
    model: Annotated[
        str | None,
        typer.Option("--model", help="Model folder; the run's champion, else model.path."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Ask a question and watch the agent search, step by step.

    With `--run RUN` the run's own settings, index and champion answer.

    Example: `exsearch ask --run runs/demo "Which river runs through the town where …?"`
    """
    from exsearch.em.session import model_of_run

    if not question.strip():
        raise InputError("the question is empty")
    if run_folder is not None:
        config = config or f"{run_folder}/run.yaml"
        overrides = [*(overrides or []), f"run={run_folder}"]
    run = settings(config, overrides)
    result = asyncio.run(_ask(run, model or model_of_run(run), question, quiet=as_json))
    if as_json:
        print_json(
            {
                "question": question,
                "answer": result.answer,
                "failure": result.failure.model_dump() if result.failure else None,
                "steps": [s.model_dump(exclude={"selection"}) for s in result.steps],
            }
        )
    if result.failure:
        raise ExSearchError(f"no answer ({result.failure.reason}): {result.failure.detail}")


async def _ask(run: RunConfig, model: str, question: str, *, quiet: bool) -> EpisodeResult:
    from exsearch.agent.episode import run_episode
    from exsearch.agent.policies import Sampling
    from exsearch.em.session import session

    async with session(run, model) as setting:
        watch = None if quiet else _show
        return await run_episode(question, setting, Sampling(), watch)


def _show(event: Event) -> None:
    text = escape(event.text)
    match event.kind:
        case "query":
            console.print(f"[bold cyan]{event.step}. search[/]  {text}")
        case "kept":
            for n in event.kept:
                passage = event.passages[n - 1]
                body = escape(" ".join(passage.text.split())[:160])
                console.print(f"   [dim]\\[{n}] {escape(passage.title)}: {body}[/]")
        case "evidence":
            console.print(f"   [green]fact[/]  {text}")
        case "repair" | "failure":
            console.print(f"   [red]{event.kind}[/]  {text}")
        case "answer":
            console.print(f"[bold]answer[/]  {text}")
        case "passages":
            pass  # all that were found; "kept" shows those the agent goes on with
