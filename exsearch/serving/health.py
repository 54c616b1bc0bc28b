"""Whether engine and retriever really answer: by the traffic, or by trying them.

Traffic is the best evidence and costs nothing. A part that has answered nobody for a while is
tried: one token from the engine, one search from the retriever. A part that failed is tried
every second until it answers again.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from exsearch.agent.episode import Setting
from exsearch.agent.policies.base import Sampling
from exsearch.errors import PolicyError, RetrieverError

PATIENCE = {"engine": 20.0, "retriever": 5.0}
"""Seconds that a trial may take: under load it waits its turn like any other request."""
AFTER_FAILURE = 1.0
"""Seconds between trials of a part that does not answer."""

log = logging.getLogger(__name__)


class Part:
    """One thing that must answer."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.problem: str | None = "it has not answered yet"
        self._heard = -float("inf")

    @property
    def ok(self) -> bool:
        return self.problem is None

    @property
    def silence(self) -> float:
        """Seconds since it last answered."""
        return time.monotonic() - self._heard

    def answered(self) -> None:
        if self.problem is not None:
            log.info("ready", extra={"fields": {"part": self.name}})
        self.problem, self._heard = None, time.monotonic()

    def failed(self, problem: str) -> None:
        if self.problem is None:
            log.error("not ready", extra={"fields": {"part": self.name, "problem": problem}})
        self.problem = problem


class Health:
    """The engine of one served model and the retriever behind it.

    Args:
        interval: seconds of silence after which a part is tried.
        mortal: the engine runs inside this process; once it has failed it stays dead.
    """

    def __init__(self, interval: float, *, mortal: bool) -> None:
        self.engine, self.retriever = Part("engine"), Part("retriever")
        self.dead = False
        self._interval, self._mortal = interval, mortal

    @property
    def ready(self) -> bool:
        return self.engine.ok and self.retriever.ok

    @property
    def problem(self) -> str:
        """Why it is not ready, for a person."""
        parts = (part for part in (self.engine, self.retriever) if part.problem)
        return "; ".join(f"the {part.name} does not answer: {part.problem}" for part in parts)

    def engine_failed(self, error: PolicyError) -> None:
        self.engine.failed(str(error))
        self.dead = self.dead or self._mortal

    async def watch(self, setting: Setting) -> None:
        """Try what is silent, until cancelled."""
        await asyncio.gather(
            self._watch(self.engine, lambda: _one_token(setting)),
            self._watch(self.retriever, lambda: _one_search(setting)),
        )

    async def _watch(self, part: Part, trial: Callable[[], Awaitable[object]]) -> None:
        while True:
            if not part.ok or part.silence >= self._interval:
                await self.attempt(part, trial)
            await asyncio.sleep(self._interval / 2 if part.ok else AFTER_FAILURE)

    async def attempt(self, part: Part, trial: Callable[[], Awaitable[object]]) -> None:
        """Try a part once and note how it went."""
        try:
            async with asyncio.timeout(PATIENCE[part.name]):
                await trial()
        except TimeoutError:
            part.failed(f"no answer within {PATIENCE[part.name]:g} seconds")
        except PolicyError as error:
            self.engine_failed(error)
        except RetrieverError as error:
            part.failed(str(error))
        else:
            part.answered()


async def _one_token(setting: Setting) -> None:
    opening = setting.policy.chat.opening(setting.agent.instruction, "Are you there?")
    await setting.policy.generate([list(opening.ids)], [Sampling(max_tokens=1)])


async def _one_search(setting: Setting) -> None:
    await setting.retriever.search(["Are you there?"], 1)
