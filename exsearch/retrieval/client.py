"""The retriever that lives elsewhere: HTTP with retries, a deadline and a cache.

What may pass (no connection, a dropped one, a time-out, 429, 5xx) is tried again
after a random, growing pause until the deadline; what the service refuses (any
other 4xx) is not. After that a `RetrieverError` says what was asked and how it went:
a rollout counts it and goes on, it never hangs.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NoReturn

import diskcache
import httpx
import tenacity
from pydantic import TypeAdapter, ValidationError

from exsearch.config import RetrievalConfig
from exsearch.errors import InputError, RetrieverError
from exsearch.records import Passage

INDEX_HEADER = "x-exsearch-index"
"""Every answer names the digest of the index it came from."""
CACHE_BYTES = 4 << 30
CONNECTIONS = 64

_ROWS = TypeAdapter(list[list[Passage]])
_ROW = TypeAdapter(list[Passage])


@dataclass
class ClientStats:
    """Counters since the client was opened."""

    queries: int = 0
    cache_hits: int = 0
    requests: int = 0
    """Sent, retries included."""
    retries: int = 0
    failures: int = 0
    """Searches that ended in a RetrieverError."""
    seconds: float = 0.0
    """Spent in successful requests, without pauses."""
    answered: int = 0

    @property
    def mean_latency(self) -> float:
        """Seconds per answered request."""
        return self.seconds / self.answered if self.answered else 0.0


class _Passing(Exception):
    """A failure that may have passed by the next attempt."""


def _may_pass(error: BaseException) -> bool:
    if isinstance(error, httpx.HTTPStatusError):
        return error.response.status_code == 429 or error.response.status_code >= 500
    return isinstance(error, httpx.TransportError)


class _NoPickles(diskcache.JSONDisk):
    """Values are JSON, and a file that claims to hold a pickle is not believed."""

    def fetch(self, mode: int, filename: str, value: Any, read: bool) -> Any:
        if mode == diskcache.core.MODE_PICKLE:
            raise RetrieverError(
                f"the cache in {self._directory} holds a pickle, which this program never "
                "writes: delete that folder"
            )
        return super().fetch(mode, filename, value, read)


class RetrieverClient:
    """A retriever service, spoken to by `POST /search`.

    Args:
        config: url, timeout (the deadline of one search, in seconds), retries, cache.

    Raises:
        InputError: the url is none.
        RetrieverError: the service does not tell its version within the deadline.
    """

    def __init__(self, config: RetrievalConfig) -> None:
        self.url = config.url.rstrip("/")
        if not self.url.startswith(("http://", "https://")):
            raise InputError(f"retrieval.url must begin with http:// or https://, not {self.url!r}")
        self.stats = ClientStats()
        self._config = config
        self._http = httpx.AsyncClient(
            base_url=self.url,
            timeout=config.timeout,
            limits=httpx.Limits(max_connections=CONNECTIONS, max_keepalive_connections=CONNECTIONS),
        )
        self._digest = self._ask_version()
        self._cache = (
            diskcache.Cache(config.cache, disk=_NoPickles, size_limit=CACHE_BYTES)
            if config.cache
            else None
        )

    @property
    def digest(self) -> str:
        return self._digest

    async def search(self, queries: list[str], k: int) -> list[list[Passage]]:
        """See `Retriever.search`; cached queries are not sent."""
        self.stats.queries += len(queries)
        rows: dict[int, list[Passage]] = {}
        if self._cache is not None:
            with self._cache_explained():
                rows = await asyncio.to_thread(self._cached, queries, k)
            self.stats.cache_hits += len(rows)
        missing = [i for i in range(len(queries)) if i not in rows]
        if missing:
            found = await self._fetch([queries[i] for i in missing], k)
            rows |= dict(zip(missing, found, strict=True))
            if self._cache is not None:
                with self._cache_explained():
                    await asyncio.to_thread(self._keep, [queries[i] for i in missing], k, found)
        return [rows[i] for i in range(len(queries))]

    async def close(self) -> None:
        await self._http.aclose()
        if self._cache is not None:
            self._cache.close()

    @contextlib.contextmanager
    def _cache_explained(self) -> Iterator[None]:
        try:
            yield
        except (OSError, sqlite3.Error, diskcache.Timeout, zlib.error, ValueError) as error:
            raise RetrieverError(
                f"the cache of results in {self._config.cache} cannot be used: {error}. "
                "Free some space, delete that folder, or leave retrieval.cache empty."
            ) from error

    def _cached(self, queries: list[str], k: int) -> dict[int, list[Passage]]:
        assert self._cache is not None
        rows = {}
        for position, query in enumerate(queries):
            value: Any = self._cache.get([self._digest, k, query])
            if value is not None:
                rows[position] = _ROW.validate_python(value)
        return rows

    def _keep(self, queries: list[str], k: int, found: list[list[Passage]]) -> None:
        assert self._cache is not None
        for query, passages in zip(queries, found, strict=True):
            self._cache.set([self._digest, k, query], [p.model_dump() for p in passages])

    async def _fetch(self, queries: list[str], k: int) -> list[list[Passage]]:
        last = "no attempt was made"

        def remember(state: tenacity.RetryCallState) -> None:
            nonlocal last
            error = state.outcome.exception() if state.outcome else None
            last = str(error) if error else last
            self.stats.retries += 1

        attempts = tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception_type(_Passing),
            stop=tenacity.stop_after_attempt(self._config.retries + 1),
            wait=tenacity.wait_random_exponential(multiplier=0.2, max=8),
            before_sleep=remember,
            reraise=True,
        )
        try:
            async with asyncio.timeout(self._config.timeout):
                return await attempts(self._once, queries, k)
        except TimeoutError:
            self._give_up(f"no answer within {self._config.timeout:g} s (last: {last})")
        except _Passing as error:
            self._give_up(f"{error}, {self._config.retries + 1} times")
        except RetrieverError:
            self.stats.failures += 1
            raise

    def _give_up(self, how: str) -> NoReturn:
        self.stats.failures += 1
        raise RetrieverError(
            f"the retriever at {self.url} failed: {how}. "
            "See whether it runs (GET /healthz), or raise retrieval.timeout."
        )

    async def _once(self, queries: list[str], k: int) -> list[list[Passage]]:
        self.stats.requests += 1
        start = time.perf_counter()
        try:
            answer = await self._http.post("/search", json={"queries": queries, "k": k})
        except httpx.TransportError as error:  # connecting, reading, timing out, dropped
            raise _Passing(f"{type(error).__name__} {error}".strip()) from error
        rows = self._understood(answer, len(queries))
        self.stats.seconds += time.perf_counter() - start
        self.stats.answered += 1
        return rows

    def _understood(self, answer: httpx.Response, count: int) -> list[list[Passage]]:
        if answer.status_code == 429 or answer.status_code >= 500:
            raise _Passing(f"it answered {answer.status_code}")
        if answer.status_code != 200:
            raise RetrieverError(
                f"the retriever at {self.url} refused the search with {answer.status_code}: "
                f"{answer.text[:300]}"
            )
        served = answer.headers.get(INDEX_HEADER, self._digest)
        if served != self._digest:
            raise RetrieverError(
                f"the retriever at {self.url} now serves index {served}, not {self._digest} as "
                "when this run began: its results would not belong together. Start a new run."
            )
        try:
            rows = _ROWS.validate_json(answer.content)
        except ValidationError as error:
            raise RetrieverError(
                f"the retriever at {self.url} does not answer as POST /search should: "
                f"{error.errors()[0]['msg']}"
            ) from error
        if len(rows) != count:
            raise RetrieverError(
                f"the retriever at {self.url} answered {count} queries with {len(rows)} lists"
            )
        return rows

    def _ask_version(self) -> str:
        """The digest of the service's index, asked until the deadline: it may be starting."""
        attempts = tenacity.Retrying(
            retry=tenacity.retry_if_exception(_may_pass),
            stop=tenacity.stop_after_delay(self._config.timeout),
            wait=tenacity.wait_random_exponential(multiplier=0.2, max=3),
            reraise=True,
        )

        def ask() -> str:
            answer = httpx.get(f"{self.url}/version", timeout=self._config.timeout)
            answer.raise_for_status()
            return str(answer.json()["index"])

        try:
            return attempts(ask)
        except (httpx.HTTPError, httpx.InvalidURL, ValueError, KeyError, TypeError) as error:
            raise RetrieverError(
                f"no retriever answers at {self.url}/version: {error}. "
                "Start one with `exsearch retriever`, or mend retrieval.url."
            ) from error
