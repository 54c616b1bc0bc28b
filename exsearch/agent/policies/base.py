"""What an episode asks of the engine that writes its turns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from exsearch.agent.chat import ChatFormat


@dataclass(frozen=True)
class Sampling:
    """How one turn is sampled.

    Attributes:
        temperature: 0 is greedy.
        max_tokens: the turn ends there at the latest.
        seed: makes this very turn repeatable, where the engine can.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    max_tokens: int = 128
    seed: int | None = None


@dataclass(frozen=True)
class Completion:
    """One turn, as the engine wrote it.

    Attributes:
        ids: token ids, the end of the turn included where `ended`.
        logprobs: log-probability of each id under the model itself (not the
            sampling distribution), same length as `ids`; empty where unknown.
        ended: the agent closed its turn (else it ran out of tokens).
        cached: tokens of its prompt that the engine had in its prefix cache.
    """

    ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    ended: bool
    cached: int = 0


@dataclass
class PolicyStats:
    """Running totals, in tokens and requests."""

    requests: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    scored_tokens: int = 0
    notes: dict[str, int] = field(default_factory=dict)
    """Named oddities, such as ids a server did not return."""

    def since(self, earlier: PolicyStats) -> PolicyStats:
        """What came after `earlier`, a copy of these totals."""
        return PolicyStats(
            requests=self.requests - earlier.requests,
            prompt_tokens=self.prompt_tokens - earlier.prompt_tokens,
            cached_tokens=self.cached_tokens - earlier.cached_tokens,
            output_tokens=self.output_tokens - earlier.output_tokens,
            scored_tokens=self.scored_tokens - earlier.scored_tokens,
            notes={name: n - earlier.notes.get(name, 0) for name, n in self.notes.items()},
        )

    @property
    def hit_rate(self) -> float:
        """Share of prompt tokens served from the prefix cache, 0..1."""
        return self.cached_tokens / self.prompt_tokens if self.prompt_tokens else 0.0


class Policy(Protocol):
    """An engine holding one model. All calls may run concurrently; it batches them."""

    chat: ChatFormat
    digest: str
    """Digest of the model's weights, as trajectories record it."""
    max_tokens: int
    """Longest prompt plus turn, in tokens."""
    stats: PolicyStats

    async def generate(
        self, prompts: Sequence[Sequence[int]], sampling: Sequence[Sampling]
    ) -> list[Completion]:
        """Continue each prompt by one turn. Raises PolicyError when the engine is gone."""
        ...

    async def score(
        self, prompts: Sequence[Sequence[int]], targets: Sequence[Sequence[int]]
    ) -> list[list[float]]:
        """log p(target token | prompt, earlier target tokens), one list per target."""
        ...

    async def load(self, model: str) -> None:
        """Take the weights of another checkpoint of the same architecture."""
        ...

    async def close(self) -> None: ...
