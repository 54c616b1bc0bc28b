"""What stands before every HTTP service of ours: bodies are bounded before anyone parses them.

Plain ASGI, so that a refused body is never read to its end and an accepted one is handed on as
if nobody had read it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping

from starlette.types import Message, Receive, Scope, Send

LARGEST_BODY = 1 << 20
"""Bytes."""

Refusal = tuple[int, str]
"""Status and reason."""

_TOO_LARGE = (413, f"the request's body is over {LARGEST_BODY} bytes")


def header(scope: Scope, name: str) -> str:
    """One header of a request, by its lower-case name; empty where it is missing."""
    wanted = name.encode()
    found = (value for key, value in scope["headers"] if key.lower() == wanted)
    return next(found, b"").decode("latin-1")


async def read_body(scope: Scope, receive: Receive) -> tuple[Refusal | None, Receive]:
    """Read a POST's JSON body, never more than is allowed, and give a `receive` that repeats it."""
    refusal = _refusal(scope)
    if refusal is not None or scope["method"] != "POST":
        return refusal, receive
    body = b""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            break
        body += message.get("body", b"")
        if len(body) > LARGEST_BODY:
            return _TOO_LARGE, receive
        if not message.get("more_body", False):
            message = {"type": "http.request", "body": body, "more_body": False}
            break
    first = [message]

    async def again() -> Message:
        return first.pop() if first else await receive()

    return None, again


def _refusal(scope: Scope) -> Refusal | None:
    """What the headers alone forbid."""
    length = header(scope, "content-length")
    if length.isdigit() and int(length) > LARGEST_BODY:
        return _TOO_LARGE
    kind = header(scope, "content-type").split(";")[0].strip().lower()
    if scope["method"] == "POST" and kind != "application/json":
        return 415, "send JSON, with the header content-type: application/json"
    return None


async def send_json(
    send: Send, status: int, content: object, headers: Mapping[str, str] | None = None
) -> None:
    """Answer with JSON and close the connection: the rest of the body is not wanted."""
    body = json.dumps(content).encode()
    told = {"content-type": "application/json", "connection": "close", **(headers or {})}
    lines = [(k.encode(), v.encode("latin-1")) for k, v in told.items()]
    lines.append((b"content-length", str(len(body)).encode()))
    await send({"type": "http.response.start", "status": status, "headers": lines})
    await send({"type": "http.response.body", "body": body})


async def until_gone(receive: Receive) -> None:
    """Return when the client has closed the connection. The body must have been read."""
    while (await receive())["type"] != "http.disconnect":
        await asyncio.sleep(0)
