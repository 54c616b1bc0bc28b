"""What every component does around its one call: open the run, speak, fail in one sentence."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Coroutine, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

from rich.console import Console

from exsearch import config
from exsearch.em.ledger import Voice
from exsearch.em.record import clear_failure, note_failure
from exsearch.em.steps import Steps
from exsearch.errors import ExSearchError

T = TypeVar("T")


class Artifact(Protocol):
    """The part of a `kfp.dsl.Artifact` that is used here."""

    name: str
    uri: str
    metadata: dict[str, Any]

    @property
    def path(self) -> str: ...


class LogVoice:
    """A `Voice` for a pod's log: whole lines, a line of progress every so often."""

    def __init__(self, console: Console, every: float = 10.0) -> None:
        self._console, self._every = console, every
        self._told = 0.0

    def step(self, title: str) -> None:
        self._console.print(title, markup=False)

    def note(self, text: str) -> None:
        self._console.print(text, markup=False)

    def progress(self, progress: Any) -> None:
        """Episodes done so far, not more often than `every` seconds, and at the end."""
        ended = progress.done == progress.questions
        if not ended and progress.seconds - self._told < self._every:
            return
        self._told = progress.seconds
        words = f"{progress.done} of {progress.questions} questions, {progress.line()}"
        self._console.print(words, markup=False)


@dataclass(frozen=True)
class Running:
    """A run's steps, and a loop to call the asynchronous ones on."""

    settings: config.RunConfig
    steps: Steps
    voice: Voice
    _loop: asyncio.Runner

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        return self._loop.run(work)


@contextmanager
def running(settings: str, step: str) -> Iterator[Running]:
    """The run that `settings` (YAML) describe, open for one step.

    An error of ours ends the process with its exit code after its message was printed and
    noted in the run folder, where whoever watches the pipeline finds it.
    """
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    voice = LogVoice(console)
    with failing_in_words(settings, step), asyncio.Runner() as loop:
        run = config.parse(settings)
        steps = Steps(run, voice, _trainer(step, voice))
        try:
            yield Running(run, steps, voice, loop)
            clear_failure(run.run, step)
        finally:
            loop.run(steps.close())


@contextmanager
def failing_in_words(settings: str, step: str, run: str = "") -> Iterator[None]:
    """Print an error's message and note it in the run folder; end with its exit code.

    Args:
        run: the run folder, where `settings` do not name it yet.
    """
    try:
        yield
    except ExSearchError as error:
        print(f"error: {step}: {error}", file=sys.stderr, flush=True)
        try:
            note_failure(run or config.parse(settings).run, step, str(error))
        except ExSearchError as second:
            print(f"(could not be noted in the run folder: {second})", file=sys.stderr)
        raise SystemExit(error.exit_code) from error


def _trainer(step: str, voice: Voice) -> Any:
    """Trains here, or as a job of the cluster, as `cluster.training.launcher` says."""

    def trainer(run: Any, how: Any, model: str, stage: Any) -> Any:
        from exsearch.em.mstep import require_examples, training_job
        from exsearch.kube.training import launch_training
        from exsearch.training.launch import describe

        def tell(event: dict[str, Any]) -> None:
            if event["event"] == "step":
                voice.note(f"step {event['step']}: {describe(event)}")
            elif event["event"] == "cluster":
                voice.note(event["message"])

        require_examples(stage)
        return launch_training(training_job(run, how, model, stage), run, step, tell)

    return trainer


def point(artifact: Artifact, location: str, **facts: Any) -> None:
    """Make an artefact a pointer: a small file with where the thing is, and facts about it.

    Models and indexes stay in the run folder; Kubeflow stores, shows and links the pointer.
    """
    content = {"location": location, **{k: v for k, v in facts.items() if v is not None}}
    path = Path(artifact.path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    artifact.metadata.update(content)


def numbers(values: Mapping[str, Any]) -> dict[str, float]:
    """The entries that are numbers, as Metrics artefacts take them."""
    return {k: float(v) for k, v in values.items() if isinstance(v, int | float)}
