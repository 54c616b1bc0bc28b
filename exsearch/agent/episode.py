"""One episode: the agent searches, notes, and answers.

Rollouts, evaluation, `exsearch ask` and the server all run `run_episode`; there
is no other prompt and no other parser.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from exsearch.agent import protocol
from exsearch.agent.policies.base import Completion, Policy, Sampling
from exsearch.config import AgentConfig
from exsearch.errors import RetrieverError
from exsearch.records import Failure, Message, Passage, Segment, Step, Transcript
from exsearch.retrieval.retriever import Retriever

EventKind = Literal["query", "passages", "kept", "evidence", "repair", "answer", "failure"]


@dataclass(frozen=True)
class Event:
    """Something that just happened, for those who watch (`ask`, the server's stream)."""

    kind: EventKind
    step: int
    text: str = ""
    passages: tuple[Passage, ...] = ()
    kept: tuple[int, ...] = ()


@dataclass(frozen=True)
class EpisodeResult:
    """How an episode went; see `records.Trajectory` for the fields."""

    steps: tuple[Step, ...]
    transcript: Transcript
    answer: str | None
    answer_ids: tuple[int, ...]
    failure: Failure | None
    forced: bool
    repairs: int
    exact: bool


class EpisodeFailed(Exception):
    """Ends an episode early with a countable reason."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason, self.detail = reason, detail


@dataclass(frozen=True)
class Setting:
    """What an episode runs with; shared by all episodes of a step."""

    policy: Policy
    retriever: Retriever
    agent: AgentConfig


async def run_episode(
    question: str,
    setting: Setting,
    sampling: Sampling,
    watch: Callable[[Event], None] | None = None,
) -> EpisodeResult:
    """Run one episode to its answer or its failure.

    Args:
        question: as asked; neutralised before it enters the transcript.
        sampling: for every turn; its seed, if any, is varied per turn.
        watch: called at each event, in order.

    Raises:
        PolicyError: the engine is gone. (A retriever that is gone fails the episode only.)
    """
    return await _Episode(question, setting, sampling, watch or (lambda event: None)).run()


class _Dialogue:
    """A growing transcript: ids for the engine, texts for the exactness check."""

    def __init__(self, setting: Setting, instruction: str, user: str) -> None:
        self._chat = setting.policy.chat
        self._policy = setting.policy
        self.segments: list[Segment] = [self._chat.opening(instruction, user)]
        self.messages = [
            Message(role="system", content=instruction),
            Message(role="user", content=user),
        ]
        self._ended = True

    @property
    def transcript(self) -> Transcript:
        return Transcript(segments=tuple(self.segments))

    @property
    def exact(self) -> bool:
        return self._chat.is_exact(self.transcript, self.messages)

    async def ask(self, sampling: Sampling) -> tuple[str, Completion]:
        """The agent's next turn; not yet part of the transcript."""
        prompt = self.transcript.token_ids
        room = self._policy.max_tokens - len(prompt)
        if room < 2:
            raise EpisodeFailed(
                "too_long",
                f"the transcript has {len(prompt)} of {self._policy.max_tokens} tokens",
            )
        within = replace(sampling, max_tokens=min(sampling.max_tokens, room - 1))
        [completion] = await self._policy.generate([prompt], [within])
        return self._chat.decode(completion.ids).strip(), completion

    def add_turn(self, text: str, completion: Completion, *, learn: bool) -> None:
        """Keep the agent's turn; a turn the protocol refused is kept but not learned."""
        self.segments.append(Segment(role="assistant", ids=completion.ids, agent=learn))
        self.messages.append(Message(role="assistant", content=text))
        self._ended = completion.ended

    def add_reply(self, text: str) -> None:
        self.segments.append(self._chat.reply(text, turn_ended=self._ended))
        self.messages.append(Message(role="user", content=text))


class _Episode:
    def __init__(
        self,
        question: str,
        setting: Setting,
        sampling: Sampling,
        watch: Callable[[Event], None],
    ) -> None:
        self.question = protocol.question_text(question)
        self.setting, self.agent = setting, setting.agent
        self.watch = watch
        self.sampling = sampling
        self.turns = 0
        self.steps: list[Step] = []
        self.repairs = 0
        self.forced = False
        self.main = _Dialogue(setting, self.agent.instruction, self.question)

    async def run(self) -> EpisodeResult:
        answer: str | None = None
        answer_ids: tuple[int, ...] = ()
        failure: Failure | None = None
        try:
            await self._search()
            answer, answer_ids = await self._answer()
            self.watch(Event("answer", len(self.steps), answer))
        except EpisodeFailed as failed:
            failure = Failure(reason=failed.reason, detail=failed.detail)
            if failed.reason == "malformed":
                # The episode failed, but how probable the gold answer is at this
                # point can still be measured: that needs the closing reply.
                self.main.add_reply(protocol.closing_reply(self.question))
            self.watch(Event("failure", len(self.steps), f"{failed.reason}: {failed.detail}"))
        return EpisodeResult(
            steps=tuple(self.steps),
            transcript=self.main.transcript,
            answer=answer,
            answer_ids=answer_ids,
            failure=failure,
            forced=self.forced,
            repairs=self.repairs,
            exact=failure is not None or self.main.exact,
        )

    def _next_sampling(self, max_tokens: int) -> Sampling:
        """Each turn its own seed, drawn from the episode's, whatever runs beside it."""
        self.turns += 1
        seed = self.sampling.seed
        if seed is not None:
            digest = hashlib.sha256(f"{seed}/{self.turns}".encode()).digest()
            seed = int.from_bytes(digest[:4], "big") >> 1
        return replace(self.sampling, seed=seed, max_tokens=max_tokens)

    async def _search(self) -> None:
        """Turns until the agent ends the search or the limit does."""
        while True:
            turn = await self._turn()
            if turn.fact is not None and self.steps:
                self.steps[-1] = self.steps[-1].model_copy(update={"evidence": turn.fact})
                self.watch(Event("evidence", len(self.steps), turn.fact))
            if turn.query is None:
                return
            if len(self.steps) == self.agent.max_steps:
                self.forced = True
                return
            await self._step(turn.query)

    async def _turn(self) -> protocol.Turn:
        """One turn that follows the protocol, after as many repairs as are allowed."""
        while True:
            text, completion = await self.main.ask(self._next_sampling(self.agent.turn_tokens))
            try:
                turn = protocol.parse_turn(text)
                if not completion.ended:
                    raise protocol.Malformed("the turn ran out of tokens")
            except protocol.Malformed as problem:
                self.main.add_turn(text, completion, learn=False)
                self._repair(problem)
                self.main.add_reply(protocol.repair_reply(problem))
            else:
                self.main.add_turn(text, completion, learn=True)
                return turn

    def _repair(self, problem: protocol.Malformed) -> None:
        if self.repairs == self.agent.repairs:
            raise EpisodeFailed("malformed", str(problem))
        self.repairs += 1
        self.watch(Event("repair", len(self.steps), str(problem)))

    async def _step(self, query: str) -> None:
        """Search for one sub-query and show the agent what is kept."""
        number = len(self.steps) + 1
        self.watch(Event("query", number, query))
        try:
            [found] = await self.setting.retriever.search([query], self.agent.passages)
        except RetrieverError as error:
            raise EpisodeFailed("retriever", str(error)) from error
        passages = tuple(found)
        self.watch(Event("passages", number, passages=passages))
        self.steps.append(Step(query=query, passages=passages))
        kept, selection = await self._select(query, passages)
        self.steps[-1] = Step(query=query, passages=passages, kept=kept, selection=selection)
        self.watch(Event("kept", number, passages=passages, kept=kept))
        reply = protocol.search_reply(passages, kept, self.agent.max_passage_words)
        self.main.add_reply(reply)

    async def _select(
        self, query: str, passages: tuple[Passage, ...]
    ) -> tuple[tuple[int, ...], Transcript | None]:
        """Which passages stay: the first few, or those picked in an exchange of its own."""
        if self.agent.selection == "top_n" or not passages:
            return tuple(range(1, min(self.agent.top_n, len(passages)) + 1)), None
        request = protocol.selection_request(
            protocol.plain(query, 100), passages, self.agent.max_passage_words
        )
        dialogue = _Dialogue(self.setting, self.agent.selection_instruction, request)
        while True:
            text, completion = await dialogue.ask(self._next_sampling(self.agent.turn_tokens))
            try:
                kept = protocol.parse_selection(text, len(passages), self.agent.top_n)
            except protocol.Malformed as problem:
                dialogue.add_turn(text, completion, learn=False)
                self._repair(problem)
                dialogue.add_reply(protocol.selection_repair(problem))
            else:
                dialogue.add_turn(text, completion, learn=completion.ended)
                return kept, dialogue.transcript

    async def _answer(self) -> tuple[str, tuple[int, ...]]:
        self.main.add_reply(protocol.closing_reply(self.question))
        text, completion = await self.main.ask(self._next_sampling(self.agent.answer_tokens))
        answer = protocol.plain(text, 100)
        if not answer:
            raise EpisodeFailed("empty_answer", "the agent's final turn is empty")
        return answer, completion.ids
