"""Requests as they come in: what is understood, what is passed over, what is refused."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from exsearch.agent.policies.base import Sampling
from exsearch.serving.agent import Ask, Limits
from exsearch.serving.refusals import Refused


class Lower(BaseModel):
    """Limits of one request: at most the server's own."""

    model_config = ConfigDict(extra="forbid", strict=True)
    max_steps: int | None = Field(default=None, ge=1)
    passages: int | None = Field(default=None, ge=1)
    max_tokens: int | None = Field(default=None, ge=1)
    deadline: float | None = Field(default=None, gt=0)

    def under(self, most: Limits) -> Limits:
        """These where they are given, the server's elsewhere.

        Raises:
            Refused: one of them is above the server's.
        """
        chosen: dict[str, Any] = {}
        for name in type(self).model_fields:
            asked, highest = getattr(self, name), getattr(most, name)
            if asked is not None and asked > highest:
                raise Refused(
                    "invalid", f"exsearch.{name}: at most {highest:g} here, not {asked:g}"
                )
            chosen[name] = highest if asked is None else asked
        return Limits(**chosen)


class Part(BaseModel):
    """A piece of a message's content."""

    type: Literal["text"]
    text: str


class ChatMessage(BaseModel):
    """One message; names, refusals, tool calls of earlier turns are passed over."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[Part] | None = None

    @property
    def text(self) -> str:
        if isinstance(self.content, list):
            return "\n".join(part.text for part in self.content)
        return self.content or ""


class StreamOptions(BaseModel):
    include_usage: bool = False


class ChatRequest(BaseModel):
    """`POST /openai/v1/chat/completions`.

    The question is the last user message. Earlier messages and system prompts do not reach the
    model, whose instruction is part of how it was trained; `exsearch.ignored` counts them.
    Fields that cannot be honoured (`n`, tools, log-probabilities, …) are refused, not passed over.
    """

    model: str
    messages: list[ChatMessage] = Field(min_length=1, max_length=1000)
    stream: bool = False
    stream_options: StreamOptions | None = None
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, gt=0, le=1)
    seed: int | None = Field(default=None, ge=0, lt=1 << 63)
    max_tokens: int | None = Field(default=None, ge=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    n: Literal[1] | None = None
    logprobs: Literal[False] | None = None
    tools: list[Any] | None = Field(default=None, max_length=0)
    functions: list[Any] | None = Field(default=None, max_length=0)
    stop: list[str] | None = Field(default=None, max_length=0)
    response_format: dict[Literal["type"], Literal["text"]] | None = None
    exsearch: Lower = Lower()

    @property
    def question(self) -> str:
        """Raises Refused: no user message."""
        asked = [message.text for message in self.messages if message.role == "user"]
        if not asked:
            raise Refused("invalid", "messages: there is no message of the role user")
        return asked[-1]

    @property
    def ignored(self) -> int:
        """Messages that do not reach the model."""
        return len(self.messages) - 1

    def sampling(self) -> Sampling:
        """Greedy unless asked otherwise, as the agent was evaluated."""
        if not self.temperature:
            return Sampling()
        return Sampling(temperature=self.temperature, top_p=self.top_p or 1.0, seed=self.seed)

    def limits(self, most: Limits) -> Limits:
        """OpenAI's `max_tokens` lowers the budget where it is lower, and is passed over where
        not: clients send it by default."""
        own = self.exsearch.under(most)
        asked = [n for n in (self.max_tokens, self.max_completion_tokens) if n is not None]
        return Limits(own.max_steps, own.passages, min([own.max_tokens, *asked]), own.deadline)


class Instance(BaseModel):
    """One question of a v1 or v2 batch."""

    model_config = ConfigDict(extra="forbid")
    question: str
    exsearch: Lower = Lower()


def understood(model: type[BaseModel], content: object) -> Any:
    """`content` as a `model`.

    Raises:
        Refused: naming the first fields at fault.
    """
    try:
        return model.model_validate(content)
    except ValidationError as error:
        problems = []
        for found in error.errors()[:5]:
            place = ".".join(str(part) for part in found["loc"]) or "request"
            problems.append(f"{place}: {found['msg']}")
        raise Refused("invalid", "; ".join(problems)) from error


def checked(question: str, longest: int) -> str:
    """A question that can be asked.

    Raises:
        Refused: it is empty or too long.
    """
    if not question.strip():
        raise Refused("invalid", "the question is empty")
    if len(question) > longest:
        raise Refused(
            "invalid", f"the question has {len(question):,} characters; at most {longest:,} here"
        )
    return question


def batch(
    instances: Sequence[Any],
    request: str,
    most: Limits,
    longest: int,
    headers: Mapping[str, str],
) -> list[Ask]:
    """A KServe batch as questions: each instance is a text or `{"question", "exsearch"}`."""
    asks = []
    for number, instance in enumerate(instances):
        content = {"question": instance} if isinstance(instance, str) else instance
        one: Instance = understood(Instance, content)
        name = request if len(instances) == 1 else f"{request}-{number}"
        limits = one.exsearch.under(most)
        asks.append(Ask(name, checked(one.question, longest), Sampling(), limits, headers))
    return asks


def new_id() -> str:
    """An id for a request that brought none."""
    return uuid.uuid4().hex
