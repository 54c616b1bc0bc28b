"""Stand-ins for the engine and the retriever: they do what the test tells them."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from exsearch.agent.chat import ChatFormat
from exsearch.agent.episode import Setting
from exsearch.agent.policies.base import Completion, PolicyStats, Sampling
from exsearch.config import AgentConfig
from exsearch.errors import PolicyError
from exsearch.records import Passage, Question

Author = Callable[[Sequence[int], Sampling], str]
"""Writes a turn, given the prompt's ids and the sampling."""


def in_order(*turns: str) -> Author:
    """An author that writes these turns one after the other."""
    left = list(turns)
    return lambda prompt, how: left.pop(0)


@dataclass
class ScriptedPolicy:
    """A `Policy` whose turns come from `author`; scores depend on the ids alone."""

    chat: ChatFormat
    author: Author
    max_tokens: int = 4096
    digest: str = "scripted"
    runs_on: bool = False
    """Turns lack their end, as if they ran out of tokens."""
    dies_after: int | None = None
    """Turns before the engine is gone."""
    pause: Callable[[Sampling], float] | None = None
    stats: PolicyStats = field(default_factory=PolicyStats)
    prompts: list[list[int]] = field(default_factory=list)
    samplings: list[Sampling] = field(default_factory=list)

    async def generate(
        self, prompts: Sequence[Sequence[int]], sampling: Sequence[Sampling]
    ) -> list[Completion]:
        return [await self._turn(p, how) for p, how in zip(prompts, sampling, strict=True)]

    async def _turn(self, prompt: Sequence[int], how: Sampling) -> Completion:
        if self.dies_after is not None and len(self.prompts) >= self.dies_after:
            raise PolicyError("the engine is gone")
        self.prompts.append(list(prompt))
        self.samplings.append(how)
        await asyncio.sleep(self.pause(how) if self.pause else 0)
        ids = self.chat.encode_turn(self.author(prompt, how))
        if not self.runs_on:
            ids += [*self.chat.end_ids]
        ids = ids[: how.max_tokens]
        ended = bool(ids) and ids[-1] == self.chat.end_ids[-1]
        return Completion(tuple(ids), (-0.5,) * len(ids), ended)

    async def score(
        self, prompts: Sequence[Sequence[int]], targets: Sequence[Sequence[int]]
    ) -> list[list[float]]:
        pairs = zip(prompts, targets, strict=True)
        return [[_some_logprob(prompt, target)] * len(target) for prompt, target in pairs]

    async def load(self, model: str) -> None:
        self.digest = model

    async def close(self) -> None:
        """Nothing to stop."""


def _some_logprob(prompt: Sequence[int], target: Sequence[int]) -> float:
    digest = hashlib.sha256(repr((list(prompt), list(target))).encode()).digest()
    return -3.0 * digest[0] / 255


@dataclass
class FakeRetriever:
    """Answers every query with the same passages, or as `answer` says."""

    passages: Sequence[Passage] = ()
    answer: Callable[[str, int], list[Passage]] | None = None
    error: Exception | None = None
    digest: str = "fake-index"
    queries: list[str] = field(default_factory=list)

    async def search(self, queries: list[str], k: int) -> list[list[Passage]]:
        self.queries += queries
        if self.error:
            raise self.error
        if self.answer:
            return [self.answer(query, k) for query in queries]
        return [list(self.passages[:k]) for _ in queries]

    async def close(self) -> None:
        """Nothing to stop."""


def passages(count: int = 3) -> list[Passage]:
    return [
        Passage(pid=f"p{n}", title=f"Title {n}", text=f"Text of passage {n}.", score=float(-n))
        for n in range(1, count + 1)
    ]


def setting(
    chat: ChatFormat, author: Author, retriever: FakeRetriever | None = None, **agent: object
) -> Setting:
    """A setting around a scripted author: top_n selection unless told otherwise."""
    how = {"selection": "top_n", "passages": 3, "top_n": 2, "repairs": 1, **agent}
    return Setting(
        ScriptedPolicy(chat, author),
        retriever or FakeRetriever(passages()),
        AgentConfig.model_validate(how),
    )


def question(name: str = "q1", *answers: str) -> Question:
    return Question(id=name, question=f"Who wrote {name}?", answers=answers or ("Ada Lovelace",))
