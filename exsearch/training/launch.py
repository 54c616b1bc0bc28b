"""Start a training run in processes of its own, and watch it.

The trainer needs all of a machine's memory and, under torchrun, several processes;
when it ends, everything it held is given back. What it says arrives as events
(`journal`) and becomes a progress bar.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
)

from exsearch import storage
from exsearch.errors import ExSearchError, InputError
from exsearch.training.job import TrainingJob, TrainingResult, finished
from exsearch.training.main import LAUNCHER, threads

Event = dict[str, Any]

_PATIENCE = 30.0
"""Seconds a run gets to end after it was asked to."""


def launch(
    job: TrainingJob, *, on_progress: Callable[[Event], None] | None = None
) -> TrainingResult:
    """Run a job to its end in child processes; a finished one is not run again.

    Args:
        on_progress: called with every event; without it a progress bar is drawn on stderr.

    Raises:
        InputError: the model, the examples or the output folder cannot be used.
        StorageError: they are at a URL whose store cannot be reached.
        ExSearchError: the run failed; the message ends with its last lines.
        KeyboardInterrupt: the run was interrupted (Ctrl-C or SIGTERM); the child is gone.
    """
    done = finished(job, job.fingerprint())
    if done is not None:
        return done
    path = storage.join(job.output, "job.json")
    storage.write_atomic(path, job.model_dump_json(indent=2) + "\n")
    if on_progress is not None:
        return _watch(job, path, on_progress)
    with _bar() as draw:
        return _watch(job, path, draw)


def command(job: TrainingJob, path: str) -> list[str]:
    """The command line that runs the job file at `path` on this machine."""
    settings = job.settings
    if settings.nproc == 1 and settings.zero_stage == 0:
        return [sys.executable, "-m", "exsearch.training.main", path]
    return [
        *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
        *("--local-addr", "127.0.0.1", "--nproc-per-node", str(settings.nproc)),
        *("--module", "exsearch.training.main", path),
    ]


def _watch(job: TrainingJob, path: str, tell: Callable[[Event], None]) -> TrainingResult:
    child = subprocess.Popen(
        command(job, path),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=_environment(job.settings.nproc),
        text=True,
        errors="replace",
        start_new_session=True,
    )
    said: deque[str] = deque(maxlen=30)
    result: TrainingResult | None = None
    failure: Event | None = None
    with _signals_forwarded(child):
        assert child.stdout is not None
        for line in child.stdout:
            event = _event(line)
            if event is None:
                said.append(line.rstrip())
                continue
            tell(event)
            if event["event"] == "done":
                result = TrainingResult.model_validate(event["result"])
            elif event["event"] == "error" and failure is None:
                failure = event
        code = child.wait()
    if failure is not None:
        kind = InputError if failure["input"] else ExSearchError
        raise kind(failure["message"])
    if code != 0 or result is None:
        tail = "\n".join(said) or "(it said nothing)"
        raise ExSearchError(
            f"training in {job.output} ended with exit code {code}. Rerun to go on from its "
            f"last checkpoint. Its last lines:\n{tail}"
        )
    return result


def _event(line: str) -> Event | None:
    """The event a line holds, or None for what libraries print."""
    if not line.startswith('{"event": '):
        return None
    try:
        return json.loads(line)
    except json.JSONDecodeError:
        return None


def _environment(processes: int) -> dict[str, str]:
    """The child's environment: it finds this package, and ends when we do."""
    package = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH", "")]))
    facts = {"PYTHONPATH": path, LAUNCHER: str(os.getpid()), "PYTHONUNBUFFERED": "1"}
    # torchrun would give each process one thread.
    facts["OMP_NUM_THREADS"] = os.environ.get("OMP_NUM_THREADS", str(threads(processes)))
    if sys.platform == "linux":
        # All ranks are on this machine: gloo need not, and should not, leave it.
        facts["GLOO_SOCKET_IFNAME"] = os.environ.get("GLOO_SOCKET_IFNAME", "lo")
    return {**os.environ, **facts}


@contextmanager
def _signals_forwarded(child: subprocess.Popen[str]) -> Iterator[None]:
    """Hand Ctrl-C and SIGTERM on to the child's processes, and leave none behind."""

    def stop(number: int, _: FrameType | None) -> None:
        raise KeyboardInterrupt

    main_thread = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, stop) if main_thread else None
    try:
        yield
    except BaseException:
        _end(child, signal.SIGTERM)
        raise
    finally:
        if main_thread:
            signal.signal(signal.SIGTERM, before)
        if child.stdout is not None:
            child.stdout.close()


def _end(child: subprocess.Popen[str], number: signal.Signals) -> None:
    """Ask the child's process group to end; after a while, end it."""
    for attempt in (number, signal.SIGKILL):
        try:
            os.killpg(child.pid, attempt)
            child.wait(timeout=_PATIENCE)
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue
        return


@contextmanager
def _bar() -> Iterator[Callable[[Event], None]]:
    """A progress bar on stderr, driven by events."""
    progress = Progress(
        TextColumn("training"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}"),
        TimeElapsedColumn(),
        console=Console(stderr=True, highlight=False),
    )
    with progress:
        task = progress.add_task("training", total=None, note="loading the model")

        def draw(event: Event) -> None:
            if event["event"] == "start":
                progress.update(task, total=event["total"], completed=event["step"], note="")
            elif event["event"] == "step":
                progress.update(task, completed=event["step"], note=describe(event))

        yield draw


def describe(event: Event) -> str:
    """A step event in words, for a line of progress."""
    minutes, seconds = divmod(round(event["eta_seconds"]), 60)
    return (
        f"loss {event['loss']:.3f}  lr {event['learning_rate']:.1e}  "
        f"{event['tokens_per_second']:.0f} tokens/s  {minutes}:{seconds:02d} left"
    )
