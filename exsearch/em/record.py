"""How a pipeline run begins and ends: its settings, its failures, its report and outcome."""

from __future__ import annotations

import html
import time
from collections.abc import Iterator

from exsearch import config
from exsearch.config import RunConfig
from exsearch.em.ledger import Quiet
from exsearch.em.steps import Steps
from exsearch.errors import ExSearchError
from exsearch.evaluation.report import write_report
from exsearch.storage import exists, join, read_json, read_text, remove, write_atomic, write_json

FAILURE = "failure.json"
"""In a run folder: the step that failed last, and its words."""


def begin_run(resolved: RunConfig) -> None:
    """Note the settings a run begins with, once, and its questions, which the report shows.

    Its model stays when the champion changes.
    """
    path = join(resolved.run, "run.yaml")
    if not exists(path):
        write_atomic(path, config.dump(resolved))
    Steps(resolved, Quiet()).check()
    clear_failure(resolved.run, "prerequisites")


def note_failure(run: str, step: str, message: str) -> None:
    """Leave a failed step's words where `failure_of` finds them."""
    write_json(join(run, FAILURE), {"step": step, "message": message})


def clear_failure(run: str, step: str) -> None:
    """Forget a step's failure: it has succeeded since."""
    path = join(run, FAILURE)
    if exists(path) and read_json(path)["step"] == step:
        remove(path)


def failure_of(run: str) -> str | None:
    """The words of the step that failed last, in the run or its index; None where none did."""
    for path in (join(place, FAILURE) for place in _places(run)):
        if exists(path):
            noted = read_json(path)
            return f"{noted['step']}: {noted['message']}"
    return None


def _places(run: str) -> Iterator[str]:
    """A run's folder, and that of the index it shares with others."""
    yield run
    noted = join(run, "run.yaml")
    if exists(noted):
        index = config.parse(read_text(noted), source=noted).retrieval.index
        if index:
            yield index.rpartition("/")[0]


def end_run(run: str, state: str, message: str) -> str:
    """Write `outcome.json` and `report.html`; returns the report's HTML.

    Args:
        state: how the pipeline says it ended, e.g. `SUCCEEDED` or `FAILED`.
        message: the pipeline's own words about it, if any.
    """
    succeeded = state.upper().endswith(("SUCCEEDED", "SUCCESS"))
    words = "" if succeeded else (failure_of(run) or message or "no step left a message")
    outcome = {"state": state, "message": words, "ended": round(time.time(), 3)}
    write_json(join(run, "outcome.json"), outcome)
    try:
        return read_text(write_report(run))
    except ExSearchError as error:
        # A run that failed before its first measurement has nothing to draw.
        lines = (f"The run ended as {state}.", words, f"No report: {error}")
        body = "".join(f"<p>{html.escape(line)}</p>" for line in lines if line)
        page = (
            f'<!doctype html><html lang="en"><title>ExSearch run</title><body>{body}</body></html>'
        )
        return page
