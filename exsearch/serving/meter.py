"""What one episode uses: tokens and seconds of engine and retriever, held to a budget."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from exsearch.agent.chat import ChatFormat
from exsearch.agent.episode import EpisodeFailed, Setting
from exsearch.agent.policies.base import Completion, Policy, PolicyStats, Sampling
from exsearch.config import AgentConfig
from exsearch.errors import PolicyError, RetrieverError
from exsearch.records import Passage
from exsearch.retrieval.retriever import Retriever
from exsearch.serving.health import Health
from exsearch.serving.metrics import Metrics


@dataclass
class Meter:
    """Running totals of one episode, in tokens and seconds."""

    prompt: int = 0
    cached: int = 0
    output: int = 0
    engine: float = 0.0
    retriever: float = 0.0
    turns: int = 0
    searches: int = 0


def metered(
    setting: Setting,
    agent: AgentConfig,
    budget: int,
    meter: Meter,
    health: Health,
    metrics: Metrics,
) -> Setting:
    """The same engine and retriever, for one episode that may write `budget` tokens."""
    policy = _MeteredPolicy(setting.policy, budget, meter, health, metrics)
    return Setting(policy, _MeteredRetriever(setting.retriever, meter, health, metrics), agent)


class _MeteredPolicy:
    """See `Policy`; ends the episode where its budget does."""

    chat: ChatFormat
    digest: str
    max_tokens: int
    stats: PolicyStats

    def __init__(
        self, inner: Policy, budget: int, meter: Meter, health: Health, metrics: Metrics
    ) -> None:
        self._inner, self._budget, self._meter, self._health = inner, budget, meter, health
        self._seconds = metrics.engine_seconds
        self.chat, self.digest = inner.chat, inner.digest
        self.max_tokens, self.stats = inner.max_tokens, inner.stats

    async def generate(
        self, prompts: Sequence[Sequence[int]], sampling: Sequence[Sampling]
    ) -> list[Completion]:
        left = self._budget - self._meter.output
        if left < 1:
            raise EpisodeFailed("token_budget", f"the agent has written {self._budget} tokens")
        within = [replace(how, max_tokens=min(how.max_tokens, left)) for how in sampling]
        started = time.perf_counter()
        try:
            completions = await self._inner.generate(prompts, within)
        except PolicyError as error:
            self._health.engine_failed(error)
            raise
        finally:
            taken = time.perf_counter() - started
            self._meter.engine += taken
            self._seconds.observe(taken)
        self._health.engine.answered()
        self._meter.turns += len(completions)
        for prompt, completion in zip(prompts, completions, strict=True):
            self._meter.prompt += len(prompt)
            self._meter.cached += completion.cached
            self._meter.output += len(completion.ids)
        return completions

    async def score(
        self, prompts: Sequence[Sequence[int]], targets: Sequence[Sequence[int]]
    ) -> list[list[float]]:
        return await self._inner.score(prompts, targets)

    async def load(self, model: str) -> None:
        raise NotImplementedError("a served model is not exchanged under its episodes")

    async def close(self) -> None:
        """The engine is shared: an episode does not close it."""


class _MeteredRetriever:
    def __init__(self, inner: Retriever, meter: Meter, health: Health, metrics: Metrics) -> None:
        self._inner, self._meter, self._health = inner, meter, health
        self._seconds = metrics.retrieval_seconds

    @property
    def digest(self) -> str:
        return self._inner.digest

    async def search(self, queries: list[str], k: int) -> list[list[Passage]]:
        started = time.perf_counter()
        try:
            found = await self._inner.search(queries, k)
        except RetrieverError as error:
            self._health.retriever.failed(str(error))
            raise
        finally:
            taken = time.perf_counter() - started
            self._meter.retriever += taken
            self._seconds.observe(taken)
        self._health.retriever.answered()
        self._meter.searches += 1
        return found

    async def close(self) -> None:
        """The retriever is shared: an episode does not close it."""
