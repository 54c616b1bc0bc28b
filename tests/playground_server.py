"""A stand-in for the predictor: the playground's files, and episodes that a test scripts.

A test says what each model's stream holds, byte for byte if it wants to: frames, pauses that
wait for the test, a connection that breaks. Everything asked of it is kept to be looked at.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
TYPES = {"html": "text/html", "js": "text/javascript", "css": "text/css"}
DONE = b"data: [DONE]\n\n"
BREAK = "break"
"""In a script: the connection is cut here."""

Script = Sequence["bytes | threading.Event | str"]
"""A stream: what is sent, gates to wait at, and `BREAK`."""


def frame(
    extra: dict[str, Any] | None = None, delta: dict[str, str] | None = None, **more: Any
) -> bytes:
    """One chunk of a streamed completion, `extra` in the extension field."""
    choice = {"index": 0, "delta": delta or {}, "finish_reason": more.pop("finish", None)}
    body = {
        "id": "req-1", "object": "chat.completion.chunk", "created": 1, "model": "exsearch",
        "choices": [choice], **more,
    }  # fmt: skip
    if extra is not None:
        body["exsearch"] = extra
    return f"data: {json.dumps(body, ensure_ascii=False)}\n\n".encode()


def event(kind: str, step: int, **what: Any) -> bytes:
    """One event of an episode: query, passages, kept, evidence, repair or answer."""
    return frame({"event": {"kind": kind, "step": step, **what}})


def passage(pid: str, title: str, text: str, score: float = 20.0) -> dict[str, Any]:
    """A passage as the retriever gives it."""
    return {"pid": pid, "title": title, "text": text, "score": score}


@dataclass(frozen=True)
class Search:
    """One step of an episode; `kept` counts from 1."""

    query: str
    passages: Sequence[dict[str, Any]]
    kept: Sequence[int]
    evidence: str | None


def searched(step: int, search: Search) -> list[bytes]:
    """The events of one step."""
    sent = [
        event("query", step, text=search.query),
        event("passages", step, passages=list(search.passages)),
        event("kept", step, kept=list(search.kept)),
    ]
    if search.evidence is not None:
        sent.append(event("evidence", step, text=search.evidence))
    return sent


def answered(searches: Sequence[Search], answer: str, request_id: str = "req-1") -> list[bytes]:
    """The end of an episode: the answer, the summary, the end mark."""
    citations = [
        {"step": number, "pid": each["pid"], "title": each["title"], "evidence": step.evidence}
        for number, step in enumerate(searches, 1)
        for position, each in enumerate(step.passages, 1)
        if position in step.kept
    ]
    summary = {
        "request_id": request_id,
        "steps": [
            {"query": s.query, "passages": s.passages, "kept": s.kept, "evidence": s.evidence}
            for s in searches
        ],
        "citations": citations, "forced": False, "repairs": 0,
        "model": "sha256:" + "a" * 64, "index": "sha256:" + "b" * 64,
        "seconds": {"total": 4.312, "waiting": 0.021, "engine": 3.502, "retriever": 0.741},
        "tokens": {"prompt": 2310, "cached": 1204, "output": 96},
    }  # fmt: skip
    return [
        event("answer", len(searches), text=answer),
        frame(delta={"content": answer}),
        frame({"summary": summary}, finish="stop"),
        DONE,
    ]


def failed(message: str, code: str) -> list[bytes]:
    """An episode that ends in an error."""
    error = {"message": message, "type": "agent_error", "code": code}
    told = {"error": error, "exsearch": {"request_id": "req-1"}}
    return [f"data: {json.dumps(told)}\n\n".encode(), DONE]


def opening() -> bytes:
    """The first chunk of every stream."""
    return frame(delta={"role": "assistant", "content": ""})


def episode(searches: Sequence[Search], answer: str) -> list[bytes]:
    """A whole episode, nothing in its way."""
    steps = [sent for number, step in enumerate(searches, 1) for sent in searched(number, step)]
    return [opening(), *steps, *answered(searches, answer)]


@dataclass
class Predictor:
    """What the stand-in answers, and what it was asked; tests write the first, read the second."""

    url: str = ""
    scripts: dict[str, Script] = field(default_factory=dict)
    """By model: what its stream holds."""
    refusal: tuple[int, dict[str, str], dict[str, str]] | None = None
    """Instead of a stream: status, error body's fields, headers."""
    token: str | None = None
    candidate: bool = False
    kept: bool = True
    forgets: bool = False
    """Feedback finds no answer: 404."""
    limits: dict[str, int] = field(
        default_factory=lambda: {
            "max_steps": 8, "passages": 20, "max_tokens": 4096, "deadline": 120, "question": 4000,
        }
    )  # fmt: skip
    asked: list[dict[str, Any]] = field(default_factory=list)
    feedback: list[dict[str, Any]] = field(default_factory=list)
    disconnected: threading.Event = field(default_factory=threading.Event)
    """Set when somebody who was being answered went away."""

    def app(self) -> Starlette:
        """The application, to be served."""
        return Starlette(
            routes=[
                Route("/playground/", self.file),
                Route("/playground/{name}", self.file),
                Route("/agent", self.agent),
                Route("/openai/v1/chat/completions", self.complete, methods=["POST"]),
                Route("/feedback", self.take_feedback, methods=["POST"]),
            ]
        )

    async def file(self, request: Request) -> Response:
        name = request.path_params.get("name", "index.html")
        file = files("exsearch") / "serving" / "playground" / Path(name).name
        if not file.is_file():
            return Response(status_code=404)
        data = file.read_bytes()
        kind = TYPES[name.rsplit(".", 1)[1]]
        headers = {"content-security-policy": CSP, "x-content-type-options": "nosniff"}
        return Response(data, media_type=kind, headers=headers)

    def barred(self, request: Request) -> Response | None:
        if self.token is None or request.headers.get("authorization") == f"Bearer {self.token}":
            return None
        return self.refuse(401, {"message": "no token", "code": "unauthorised"}, {})

    def refuse(self, status: int, error: dict[str, str], headers: dict[str, str]) -> Response:
        body = {"error": {"type": "refused", **error}}
        return JSONResponse(body, status, {"x-request-id": "req-9", **headers})

    async def agent(self, request: Request) -> Response:
        if barred := self.barred(request):
            return barred
        models = [{"id": "exsearch", "role": "champion", "digest": "sha256:" + "a" * 64}]
        if self.candidate:
            other = {
                "id": "exsearch-candidate",
                "role": "candidate",
                "digest": "sha256:" + "c" * 64,
            }
            models.append(other)
        return JSONResponse(
            {
                "name": "exsearch", "models": models, "index": "sha256:" + "b" * 64,
                "limits": self.limits, "feedback": {"kept": self.kept},
            }
        )  # fmt: skip

    async def take_feedback(self, request: Request) -> Response:
        if barred := self.barred(request):
            return barred
        self.feedback.append(await request.json())
        if self.forgets:
            return self.refuse(404, {"message": "that answer is no longer remembered"}, {})
        return JSONResponse({"kept": self.kept})

    async def complete(self, request: Request) -> Response:
        if barred := self.barred(request):
            return barred
        body = await request.json()
        self.asked.append(body)
        if self.refusal:
            return self.refuse(*self.refusal)
        return StreamingResponse(
            self.stream(request, self.scripts[body["model"]]),
            media_type="text/event-stream",
            headers={"x-request-id": "req-1", "cache-control": "no-store"},
        )

    async def stream(self, request: Request, script: Script) -> AsyncIterator[bytes]:
        complete = False
        try:
            for part in script:
                if isinstance(part, threading.Event):
                    while not part.is_set():
                        if await request.is_disconnected():
                            return
                        await asyncio.sleep(0.01)
                elif isinstance(part, str):
                    complete = True
                    raise ConnectionError("broken on purpose")
                else:
                    yield part
            complete = True
        finally:
            if not complete:
                self.disconnected.set()


@contextmanager
def serving(predictor: Predictor) -> Iterator[Predictor]:
    """Serve `predictor` on a free port of 127.0.0.1, in a thread; its `url` is set."""
    config = uvicorn.Config(
        predictor.app(), host="127.0.0.1", port=0, log_level="critical",
        timeout_graceful_shutdown=1, lifespan="off",
    )  # fmt: skip
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            if not thread.is_alive():
                raise RuntimeError("the stand-in predictor did not start")
            thread.join(0.02)
        [socket] = server.servers[0].sockets
        predictor.url = f"http://127.0.0.1:{socket.getsockname()[1]}"
        yield predictor
    finally:
        server.should_exit = True
        thread.join()
