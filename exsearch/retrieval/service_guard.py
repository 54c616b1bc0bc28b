"""What stands before the service's routes: limits, and counters for Prometheus.

Labels take few values only (known route, status code), whatever strangers send.
"""

from __future__ import annotations

import time

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Histogram
from prometheus_client.exposition import generate_latest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from exsearch.web import read_body, send_json

LATENCIES = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """Counters of one service, in a registry of its own."""

    content_type = CONTENT_TYPE_LATEST

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "exsearch_retriever_requests",
            "Requests answered.",
            ("route", "code"),
            registry=self._registry,
        )
        self._seconds = Histogram(
            "exsearch_retriever_request_seconds",
            "From the request's arrival to its answer.",
            ("route",),
            buckets=LATENCIES,
            registry=self._registry,
        )
        self._queries = Counter(
            "exsearch_retriever_queries", "Queries searched.", registry=self._registry
        )
        self._batches = Histogram(
            "exsearch_retriever_batch_queries",
            "Queries searched together.",
            buckets=SIZES,
            registry=self._registry,
        )

    def answered(self, route: str, code: int, seconds: float) -> None:
        self._requests.labels(route, str(code)).inc()
        self._seconds.labels(route).observe(seconds)

    def searched(self, queries: int, batches: list[int]) -> None:
        """Count queries, and the batches noted since last time."""
        self._queries.inc(queries)
        while batches:
            self._batches.observe(batches.pop())

    def text(self) -> bytes:
        return generate_latest(self._registry)


class Guard:
    """Refuses oversized bodies while they are read, and bodies that are not JSON."""

    def __init__(self, app: ASGIApp, metrics: Metrics, headers: dict[str, str]) -> None:
        self._app, self._metrics = app, metrics
        self._headers = [(k.encode(), v.encode()) for k, v in headers.items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start, code = time.perf_counter(), 500

        async def sending(message: Message) -> None:
            nonlocal code
            if message["type"] == "http.response.start":
                code = message["status"]
                message["headers"] = [*message.get("headers", []), *self._headers]
            await send(message)

        try:
            refusal, receive = await read_body(scope, receive)
            if refusal is None:
                await self._app(scope, receive, sending)
            else:
                status, reason = refusal
                await send_json(sending, status, {"detail": reason})
        finally:
            route = getattr(scope.get("route"), "path", "other")
            self._metrics.answered(route, code, time.perf_counter() - start)
