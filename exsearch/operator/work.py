"""What is to be looked at, and when: each agent by one worker at a time, none forgotten."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable

from exsearch.errors import ExSearchError
from exsearch.operator.look import Outcome
from exsearch.operator.metrics import Metrics

log = logging.getLogger(__name__)

Key = tuple[str, str]
"""Namespace and name of an agent."""
Look = Callable[[str, str], Awaitable[Outcome]]

WORKERS = 4
DEADLINE = 300.0
"""Seconds for one look."""
_LONGEST = 600.0
"""Longest pause after failures, in seconds."""


class Work:
    """The queue of a controller: an agent that is named ten times is looked at once.

    Named while it is looked at, it is looked at again afterwards. After a failure the pause
    grows, so that a broken agent costs the others nothing.

    Args:
        look: reconciles one agent.
        first: pause after a first failure, in seconds.
    """

    def __init__(self, look: Look, metrics: Metrics, first: float = 1.0) -> None:
        self._look = look
        self._metrics = metrics
        self._first = first
        self._due: dict[Key, asyncio.TimerHandle] = {}
        self._ready: asyncio.Queue[Key] = asyncio.Queue()
        self._queued: set[Key] = set()
        self._busy: set[Key] = set()
        self._named_meanwhile: set[Key] = set()
        self._failures: dict[Key, int] = {}

    def add(self, key: Key, delay: float = 0.0) -> None:
        """Look at an agent in `delay` seconds, or earlier if that was asked for before."""
        loop = asyncio.get_running_loop()
        due = self._due.get(key)
        if due is not None:
            if due.when() <= loop.time() + delay:
                return
            due.cancel()
        self._due[key] = loop.call_later(delay, self._now, key)

    def _now(self, key: Key) -> None:
        self._due.pop(key, None)
        if key in self._busy:
            self._named_meanwhile.add(key)
        elif key not in self._queued:
            self._queued.add(key)
            self._ready.put_nowait(key)

    async def run(self) -> None:
        """Work until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(WORKERS):
                    group.create_task(self._worker())
        finally:
            for due in self._due.values():
                due.cancel()

    async def _worker(self) -> None:
        while True:
            key = await self._ready.get()
            self._queued.discard(key)
            self._busy.add(key)
            try:
                again = await self._once(key)
            finally:
                self._busy.discard(key)
            if key in self._named_meanwhile:
                self._named_meanwhile.discard(key)
                again = min(again or 0.0, self._pause(key)) if key in self._failures else 0.0
            if again is not None:
                self.add(key, again)

    async def _once(self, key: Key) -> float | None:
        """Look at an agent; the seconds until the next look, None: it is gone."""
        where = "/".join(key)
        try:
            with self._metrics.reconcile_seconds.time():
                async with asyncio.timeout(DEADLINE):
                    outcome = await self._look(*key)
        except TimeoutError:
            log.error("%s: not done within %.0f seconds", where, DEADLINE)
        except ExSearchError as error:
            log.warning("%s: %s", where, error)
        except Exception:
            log.exception("%s: a bug of the operator", where)
        else:
            if outcome.actions:
                log.info("%s: %s", where, ", ".join(outcome.actions))
            if outcome.trouble is None:
                self._metrics.reconciles.labels("done").inc()
                self._failures.pop(key, None)
                return None if outcome.again is None else _spread(outcome.again)
            log.warning("%s: %s: %s", where, outcome.trouble.reason, outcome.trouble.message)
            self._metrics.reconciles.labels("failed").inc()
            return outcome.again
        self._metrics.reconciles.labels("failed").inc()
        self._failures[key] = self._failures.get(key, 0) + 1
        return self._pause(key)

    def _pause(self, key: Key) -> float:
        """Seconds after this many failures in a row: doubled each time, at random."""
        return _spread(min(_LONGEST, self._first * 2 ** (self._failures.get(key, 1) - 1)))


def _spread(seconds: float) -> float:
    """Up to a fifth later, so that agents that began together do not stay together."""
    return seconds * (1 + 0.2 * random.random())
