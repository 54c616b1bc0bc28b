"""What every request passes first: its id, its token, its size, its client's presence."""

from __future__ import annotations

import asyncio
import hmac
import re
import time
from collections.abc import MutableMapping
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from exsearch.serving.metrics import Metrics
from exsearch.serving.refusals import Refused
from exsearch.serving.requests import new_id
from exsearch.web import header, read_body, send_json, until_gone

_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
OPEN = frozenset({"/", "/healthz", "/v2/health/live", "/v2/health/ready", "/metrics"})
"""Paths that need no token: probes, Prometheus; and the playground's files, which hold no data."""
PLAYGROUND = "/playground"
GONE = 499
"""Status that a request counts under when its client left before the answer."""


class Guard:
    """Refuses what must not come in, and ends what nobody waits for any more.

    A client that closes its connection cancels its request, whatever route it is on: the episode
    stops and the engine is free.

    Args:
        token: requests must bring it as a bearer token; empty: none is needed.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, token: str) -> None:
        self._app, self._metrics, self._token = app, metrics, token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = header(scope, "x-request-id")
        request = request if _ID.fullmatch(request) else new_id()
        _state(scope)["request_id"] = request
        scope["headers"] = _with_id(scope["headers"], request)
        answer = _Answer(send, request)
        started = time.perf_counter()
        try:
            await self._pass(scope, receive, answer)
        finally:
            route = getattr(scope.get("route"), "path", "other")
            self._metrics.requests.labels(route, str(answer.status)).inc()
            self._metrics.request_seconds.labels(route).observe(time.perf_counter() - started)

    async def _pass(self, scope: Scope, receive: Receive, answer: _Answer) -> None:
        if not self._knows(scope):
            refused = Refused("unauthorised", "send the bearer token: Authorization: Bearer …")
            told = {"www-authenticate": "Bearer"}
            await send_json(answer, refused.status, refused.body(), told)
            return
        refusal, receive = await read_body(scope, receive)
        if refusal is not None:
            status, message = refusal
            error = {"message": message, "type": "invalid_request_error", "code": "invalid"}
            await send_json(answer, status, {"error": error})
            return
        await self._while_wanted(scope, receive, answer)

    def _knows(self, scope: Scope) -> bool:
        path = scope["path"]
        if not self._token or path in OPEN or path.startswith(PLAYGROUND):
            return True
        kind, _, given = header(scope, "authorization").partition(" ")
        same = hmac.compare_digest(given.strip().encode(), self._token.encode())
        return same and kind.lower() == "bearer"

    async def _while_wanted(self, scope: Scope, receive: Receive, answer: _Answer) -> None:
        """Run the request until it is done or its client has gone."""
        body = [await receive()] if scope["method"] == "POST" else []
        gone = asyncio.create_task(until_gone(receive))

        async def again() -> Message:
            if body:
                return body.pop()
            await asyncio.wait([gone])
            return {"type": "http.disconnect"}

        work = asyncio.ensure_future(self._app(scope, again, answer))
        try:
            await asyncio.wait([work, gone], return_when=asyncio.FIRST_COMPLETED)
            if answer.whole:  # the server reports every connection as closed after its answer
                await asyncio.wait([work])
            elif not work.done():
                answer.status = GONE
                work.cancel()
                await asyncio.wait([work])
            if not work.cancelled():
                work.result()
        finally:
            for task in (work, gone):
                task.cancel()
            await asyncio.wait([work, gone])


class _Answer:
    """A `send` that remembers the status and names the request."""

    def __init__(self, send: Send, request: str) -> None:
        self._send, self._request = send, request
        self.status = 500
        self.whole = False
        """Its last piece has been sent."""

    async def __call__(self, message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            named = (b"x-request-id", self._request.encode())
            message["headers"] = [*message.get("headers", []), named]
        if message["type"] == "http.response.body":
            self.whole = not message.get("more_body", False)
        await self._send(message)


def _state(scope: Scope) -> MutableMapping[str, Any]:
    return scope.setdefault("state", {})


def _with_id(headers: list[tuple[bytes, bytes]], request: str) -> list[tuple[bytes, bytes]]:
    """The request's headers with the id that it goes by here (KServe hands headers on)."""
    others = [(key, value) for key, value in headers if key.lower() != b"x-request-id"]
    return [*others, (b"x-request-id", request.encode())]
