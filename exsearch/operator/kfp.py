"""The agent's schedule and its runs in Kubeflow Pipelines.

The client is blocking, and kfp compiles with global state: all of it happens in one thread.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

from urllib3.exceptions import HTTPError

from exsearch import __version__
from exsearch.config import RunConfig, dump_line
from exsearch.errors import ExSearchError
from exsearch.storage import digest_bytes

if TYPE_CHECKING:
    from exsearch.pipelines.server import Server

T = TypeVar("T")

DEADLINE = 15.0
"""Seconds for which one answer of Kubeflow Pipelines is waited for."""
REST = 20.0
"""Seconds for which a server that did not answer is not asked again: others wait for the thread."""
ACTIVE = frozenset({"PENDING", "RUNNING", "CANCELING", "PAUSED"})
"""States of a run that is not over."""


@dataclass(frozen=True)
class Run:
    """The newest run of a schedule."""

    id: str
    name: str
    state: str
    """Kubeflow's word: `PENDING`, `RUNNING`, `SUCCEEDED`, `FAILED`, …"""
    started: str
    """RFC 3339; empty: it has not."""
    finished: str
    url: str
    indexed: bool
    """Its index step is over, as far as the server tells."""

    @property
    def active(self) -> bool:
        return self.state in ACTIVE


@dataclass(frozen=True)
class Recurring:
    """The recurring run as it was found or made."""

    id: str
    name: str
    digest: str
    """Digest of the settings that it was made from."""
    enabled: bool

    def status(self) -> dict[str, Any]:
        """As the agent's status has it."""
        return {"id": self.id, "name": self.name, "digest": self.digest, "enabled": self.enabled}


def schedule_digest(config: RunConfig) -> str:
    """Digest of all that a recurring run is made from: settings, and the code that compiles."""
    return digest_bytes(dump_line(config).encode(), __version__.encode())


class Pipelines:
    """Kubeflow Pipelines, without blocking. Use with `async with`.

    Every method raises `ExSearchError` where the server cannot be reached or fails, and
    `InputError` where it refuses.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="kubeflow")
        self._silent: dict[str, tuple[float, str]] = {}

    async def __aenter__(self) -> Pipelines:
        return self

    async def __aexit__(self, *_: object) -> None:
        # A request under way has its own deadline; nobody waits for it.
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def schedule(self, config: RunConfig) -> Recurring:
        """Make the recurring run, or bring it to these settings."""
        return await self._do(config, lambda: _schedule(config))

    async def stands(self, config: RunConfig, known: str) -> bool:
        """Whether the recurring run is there as it was made: one, and enabled or not.

        Args:
            known: its id.
        """
        return await self._do(config, lambda: _stands(config, known))

    async def remove(self, config: RunConfig) -> None:
        """Remove the recurring run; pipeline, experiment and runs stay, as a record."""
        await self._do(config, lambda: _remove(config))

    async def last_run(self, config: RunConfig, recurring: str) -> Run | None:
        """The newest run of a schedule; None before the first.

        Args:
            recurring: id of the recurring run.
        """
        return await self._do(config, lambda: _last_run(config, recurring))

    async def _do(self, config: RunConfig, work: Callable[[], T]) -> T:
        host = config.pipeline.host

        def unless_silent() -> T:
            since, why = self._silent.get(host, (-REST, ""))
            if why and time.monotonic() - since < REST:
                raise ExSearchError(why)
            try:
                return work()
            except ExSearchError as error:
                if isinstance(error.__cause__, HTTPError):
                    self._silent[host] = time.monotonic(), str(error)
                raise

        return await asyncio.get_running_loop().run_in_executor(self._thread, unless_silent)


def _server(config: RunConfig) -> Server:
    from exsearch.pipelines.server import Server

    return Server(config, DEADLINE)


def _schedule(config: RunConfig) -> Recurring:
    made = _server(config).schedule()
    enabled = config.pipeline.schedule.enabled
    name = config.pipeline.name
    return Recurring(made.recurring_run_id, name, schedule_digest(config), enabled)


def _own(server: Server) -> list[Any]:
    runs = server.recurring_runs()
    return [run for run in runs if run.display_name == server.pipeline.name]


def _stands(config: RunConfig, known: str) -> bool:
    own = _own(_server(config))
    if [run.recurring_run_id for run in own] != [known]:
        return False
    return (str(own[0].status) == "ENABLED") == config.pipeline.schedule.enabled


def _remove(config: RunConfig) -> None:
    server = _server(config)
    for run in _own(server):
        server.remove(run.recurring_run_id)


def _last_run(config: RunConfig, recurring: str) -> Run | None:
    server = _server(config)
    equals = {"operation": "EQUALS", "key": "recurring_run_id", "stringValue": recurring}
    page = server.ask(
        "list the runs of the schedule",
        lambda: server.runs.run_service_list_runs(
            filter=json.dumps({"predicates": [equals]}),
            sort_by="created_at desc",
            page_size=1,
            **server.namespace(),
        ),
    )
    return _read(page.runs[0], config.pipeline.host) if page.runs else None


def _read(run: Any, host: str) -> Run:
    state = str(run.state or "PENDING")
    details = run.run_details.task_details if run.run_details else None
    over = ("SUCCEEDED", "SKIPPED")
    done = {str(task.display_name) for task in details or [] if str(task.state) in over}
    return Run(
        id=str(run.run_id),
        name=str(run.display_name),
        state=state,
        started=_time(run.scheduled_at or run.created_at),
        finished="" if state in ACTIVE else _time(run.finished_at),
        url=f"{host.rstrip('/')}/#/runs/details/{run.run_id}",
        indexed=state == "SUCCEEDED" or "index" in done,
    )


def _time(value: datetime | None) -> str:
    """As RFC 3339; Kubeflow writes the epoch where it means never."""
    if value is None or value.year <= 1970:
        return ""
    aware = value if value.tzinfo else value.replace(tzinfo=UTC)
    return aware.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
