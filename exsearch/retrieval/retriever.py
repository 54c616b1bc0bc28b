"""What the agent sees of retrieval: `await retriever.search(queries, k)`.

The same protocol is spoken by an index opened in this process and by a service
elsewhere; `open_retriever` picks by configuration. Nothing here imports torch until
an index is opened.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

from exsearch import mirror, storage
from exsearch.config import RunConfig
from exsearch.errors import ExSearchError, RetrieverError
from exsearch.records import Passage

BATCH = 32
"""Queries searched together at most: more would make the first ones wait for the last."""


class Retriever(Protocol):
    """Finds passages for queries; safe to call from many tasks at once."""

    @property
    def digest(self) -> str:
        """Digest of the index behind it."""
        ...

    async def search(self, queries: list[str], k: int) -> list[list[Passage]]:
        """The k best passages of each query, best first, with their scores.

        Raises:
            RetrieverError: no answer in time, after all retries.
        """
        ...

    async def close(self) -> None:
        """Let go of connections and threads."""
        ...


class Searches(Protocol):
    """The part of `Searcher` that is needed here (tests bring their own)."""

    @property
    def digest(self) -> str: ...

    def search(self, queries: list[str], k: int) -> list[list[Passage]]: ...


@dataclass
class _Call:
    queries: list[str]
    k: int
    result: asyncio.Future[list[list[Passage]]]


class LocalRetriever:
    """An open index. Calls that come while all workers search form the next batch.

    Nobody waits for company: a call that finds a worker free starts at once, and under
    load the batches grow by themselves. The event loop stays free.

    Args:
        searcher: must allow as many threads at once as there are workers.
        workers: batches searched at the same time.
    """

    def __init__(self, searcher: Searches, workers: int = 1) -> None:
        self._searcher = searcher
        self._waiting: list[_Call] = []
        self._idle = workers
        self._tasks: set[asyncio.Task[None]] = set()
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="searcher")
        self.batches: list[int] = []
        """Sizes of the batches since someone last took them (for metrics)."""

    @property
    def digest(self) -> str:
        return self._searcher.digest

    async def search(self, queries: list[str], k: int) -> list[list[Passage]]:
        """See `Retriever.search`."""
        if not queries:
            return []
        call = _Call(queries, k, asyncio.get_running_loop().create_future())
        self._waiting.append(call)
        if self._idle:
            self._idle -= 1
            task = asyncio.create_task(self._work())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return await call.result

    async def _work(self) -> None:
        try:
            while batch := self._next_batch():
                await self._search(batch)
        finally:
            self._idle += 1  # at once: a call that comes now must not count on this worker

    async def _search(self, batch: list[_Call]) -> None:
        queries = [query for call in batch for query in call.queries]
        self._note(len(queries))
        try:
            found = await asyncio.get_running_loop().run_in_executor(
                self._threads, self._searcher.search, queries, batch[0].k
            )
        except (ExSearchError, OSError, RuntimeError, ValueError) as error:
            _fail(batch, error)
            return
        start = 0
        for call in batch:
            rows = found[start : start + len(call.queries)]
            start += len(call.queries)
            if not call.result.done():  # its caller may have gone
                call.result.set_result(rows)

    def _next_batch(self) -> list[_Call]:
        """The oldest call, and those that fit beside it and want as many passages."""
        self._waiting = [call for call in self._waiting if not call.result.done()]
        batch: list[_Call] = []
        size = 0
        for call in list(self._waiting):
            if batch and (call.k != batch[0].k or size + len(call.queries) > BATCH):
                continue
            batch.append(call)
            size += len(call.queries)
            self._waiting.remove(call)
        return batch

    def _note(self, size: int) -> None:
        self.batches.append(size)
        del self.batches[:-1000]

    async def close(self) -> None:
        if self._tasks:
            await asyncio.wait(set(self._tasks))
        self._threads.shutdown(wait=True)


def _fail(batch: Sequence[_Call], error: Exception) -> None:
    for call in batch:
        if not call.result.done():
            told = RetrieverError(f"the index could not be searched: {error}")
            told.__cause__ = error
            call.result.set_exception(told)


def open_retriever(config: RunConfig) -> Retriever:
    """The retriever that the configuration names: a service, or an index.

    An index at a URL is first copied to the scratch folder: it is memory-mapped.

    Raises:
        RetrieverError: the service does not answer.
        StorageError: there is no index.
    """
    settings = config.retrieval
    if settings.url:
        from exsearch.retrieval.client import RetrieverClient

        return RetrieverClient(settings)
    from exsearch.retrieval.searcher import Searcher

    folder = settings.index or storage.join(config.run, "index")
    return LocalRetriever(Searcher(mirror.local(folder), settings.checkpoint or None))


async def search_once(retriever: Retriever, text: str, k: int) -> list[Passage]:
    """One query, then close."""
    try:
        return (await retriever.search([text], k))[0]
    finally:
        await retriever.close()
