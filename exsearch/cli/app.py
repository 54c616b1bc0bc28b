"""`exsearch`: one command per step, each in a module of its own.

Commands are imported only when they are asked for, so that `--help` answers at
once. A module `exsearch.cli.NAME` defines `main`, a function with Typer
parameters whose docstring is the command's help, or `app`, a group of commands.
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any

import typer
from typer.core import TyperGroup

from exsearch import __version__
from exsearch.cli.common import console
from exsearch.errors import ExSearchError

COMMANDS: dict[str, str] = {
    "world": "Write the generated demo world: corpus and questions.",
    "index": "Build a ColBERT index over a corpus, or estimate what it takes.",
    "search": "Search an index and print what it finds.",
    "retriever": "Serve an index over HTTP.",
    "warmup": "Make the warm-up set from questions with known decompositions.",
    "sft": "Tune a model on the warm-up set.",
    "rollout": "E-step: sample trajectories.",
    "weigh": "E-step: weigh trajectories by how probable the gold answer is.",
    "align": "M-step: tune the model on the weighted trajectories.",
    "evaluate": "Measure a model, or anyone's predictions.",
    "compare": "Compare two evaluations by paired bootstrap.",
    "gate": "Decide whether a candidate replaces the champion.",
    "em": "Run the whole loop.",
    "report": "Write a run's report as one HTML file.",
    "pipeline": "Compile, submit, schedule, run or plan the recurring pipeline.",
    "demo": "Run the whole loop on the demo world, on a laptop.",
    "ask": "Ask a question and watch the agent search.",
    "serve": "Serve the agent over HTTP, with a playground.",
    "agent": "Show, promote, roll back, pause or resume an agent in service.",
    "operator": "Run the SearchAgent operator, or print its resource definition.",
}


INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it."""


class LazyGroup(TyperGroup):
    """Loads `exsearch.cli.NAME` on first use of the command NAME.

    Typer brings its own copy of click, whose types are private; hence `Any`.
    """

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"exsearch.cli.{cmd_name}")
        group = getattr(module, "app", None)
        if group is None:
            group = typer.Typer(add_completion=False, rich_markup_mode="markdown")
            group.command(name=cmd_name)(module.main)
        command = typer.main.get_command(group)
        command.name = cmd_name
        return command

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


app = typer.Typer(
    cls=LazyGroup,
    add_completion=False,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Teach a language model to search, by expectation-maximisation.",
)


@app.callback(invoke_without_command=True)
def root(
    version: bool = typer.Option(False, "--version", help="Print the version and exit."),
) -> None:
    if version:
        typer.echo(__version__)
        raise typer.Exit


def run() -> None:
    """The console script: the app, with our errors turned into exit codes."""
    # Models are folders here; nothing is fetched while a step runs. Without this,
    # every load behind a closed network first waits for a hub that will not answer.
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    try:
        app(standalone_mode=True)
    except ExSearchError as error:
        console.print(f"error: {error}", style="bold red", markup=False)
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, SystemExit) as ended:
        # Typer turns an interrupt into this exit code, without a word.
        if isinstance(ended, SystemExit) and ended.code != INTERRUPTED:
            raise
        console.print("interrupted; run the same command again to go on where it stopped")
        sys.exit(INTERRUPTED)
