"""OpenAI's chat completions, streamed or whole, and the list of models.

KServe's own OpenAI module is not used: its types are those of one vLLM version, and it cannot be
imported beside another, or without vLLM at all.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping

from fastapi import APIRouter, Request, Response
from starlette.types import Receive, Scope, Send

from exsearch.agent.episode import Event
from exsearch.serving import answers
from exsearch.serving.agent import Answered, Ask, ServedAgent
from exsearch.serving.feedback import Remembered
from exsearch.serving.refusals import Refused
from exsearch.serving.requests import ChatRequest, checked, understood

PREFIX = "/openai/v1"
BEAT = 15.0
"""Seconds of silence after which a comment keeps a stream's connection open."""


class Json(Response):
    """JSON as it is, without a detour through models."""

    media_type = "application/json"

    def render(self, content: object) -> bytes:
        return json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode(
            errors="replace"
        )


async def body_of(request: Request) -> object:
    """A request's JSON.

    Raises:
        Refused: it is none.
    """
    try:
        return await request.json()
    except (ValueError, RecursionError) as error:
        raise Refused("invalid", f"the body is not JSON: {error}") from error


def pick(agents: Mapping[str, ServedAgent], name: str) -> ServedAgent:
    """The model that a request names.

    Raises:
        Refused: there is none of this name.
    """
    agent = agents.get(name)
    if agent is None:
        known = ", ".join(agents)
        raise Refused("unknown_model", f"model: there is no {name[:100]!r} here, only {known}")
    return agent


def router(agents: Mapping[str, ServedAgent], remembered: Remembered) -> APIRouter:
    """The routes under `/openai/v1`."""
    routes = APIRouter(prefix=PREFIX)
    began = int(time.time())

    @routes.post("/chat/completions")
    async def chat(request: Request) -> Response:
        asked: ChatRequest = understood(ChatRequest, await body_of(request))
        agent = pick(agents, asked.model)
        question = checked(asked.question, agent.config.max_question)
        ask = Ask(
            request.state.request_id,
            question,
            asked.sampling(),
            asked.limits(agent.limits),
            request.headers,
        )
        if asked.stream:
            return EventStream(agent, ask, asked, remembered)
        [place] = agent.take()
        answered = await agent.answer(ask, place)
        remembered.add(answered)
        return Json(answers.completion(answered, agent.name, asked.ignored))

    @routes.get("/models")
    async def models() -> Response:
        listed = [
            {"id": name, "object": "model", "created": began, "owned_by": "exsearch"}
            for name in agents
        ]
        return Json({"object": "list", "data": listed})

    @routes.get("/models/{name}")
    async def model(name: str) -> Response:
        agent = pick(agents, name)
        told = {"id": agent.name, "object": "model", "created": began, "owned_by": "exsearch"}
        return Json(told)

    return routes


class EventStream(Response):
    """Server-sent events of one episode, as they happen.

    The episode is a task of its own, which ends with the response: a client that goes away
    cancels both, and the engine is free again.
    """

    def __init__(
        self, agent: ServedAgent, ask: Ask, asked: ChatRequest, remembered: Remembered
    ) -> None:
        super().__init__()
        self._agent, self._ask, self._asked = agent, ask, asked
        self._remembered = remembered
        self._chunks = answers.Chunks(ask.request, agent.name)
        self._events: asyncio.Queue[Event | None] = asyncio.Queue()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        [place] = self._agent.take()  # refused with a status, before the stream begins
        episode = asyncio.create_task(self._agent.answer(self._ask, place, self._events.put_nowait))
        episode.add_done_callback(lambda _: self._events.put_nowait(None))
        try:
            await self._start(send)
            await self._say(send, self._chunks.opening())
            while (event := await self._next(send)) is not None:
                await self._say(send, self._chunks.event(event))
            await self._end(send, await _outcome(episode))
        finally:
            place.leave()
            episode.cancel()
            await asyncio.wait([episode])

    async def _next(self, send: Send) -> Event | None:
        while True:
            try:
                return await asyncio.wait_for(self._events.get(), BEAT)
            except TimeoutError:
                await _send(send, b": waiting\n\n")

    async def _end(self, send: Send, outcome: Answered | Refused) -> None:
        if isinstance(outcome, Refused):
            await self._say(send, outcome.body() | {"exsearch": {"request_id": self._ask.request}})
        else:
            self._remembered.add(outcome)
            await self._say(send, self._chunks.answer(outcome.answer))
            await self._say(send, self._chunks.end(outcome, self._asked.ignored))
            if self._asked.stream_options and self._asked.stream_options.include_usage:
                await self._say(send, self._chunks.usage(outcome))
        await _send(send, b"data: [DONE]\n\n")
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _start(self, send: Send) -> None:
        headers = [
            (b"content-type", b"text/event-stream; charset=utf-8"),
            (b"cache-control", b"no-cache"),
            (b"x-accel-buffering", b"no"),  # a proxy must not hold steps back
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})

    async def _say(self, send: Send, content: answers.Json) -> None:
        text = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
        await _send(send, f"data: {text}\n\n".encode(errors="replace"))


async def _outcome(episode: asyncio.Task[Answered]) -> Answered | Refused:
    try:
        return await episode
    except Refused as refused:
        return refused


async def _send(send: Send, data: bytes) -> None:
    await send({"type": "http.response.body", "body": data, "more_body": True})
