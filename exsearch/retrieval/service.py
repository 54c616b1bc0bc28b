"""The retriever over HTTP, in the three shapes that clients speak.

* `POST /search {"queries": [...], "k": 20}`: per query `[{pid, title, text, score}]`.
* `GET /api/search?query=...&k=10`, or POST with the same as JSON: what ColBERT's own server
  and `dspy.ColBERTv2` speak, `{"query", "topk": [{pid, rank, score, prob, text}]}`.
* `POST /retrieve {"queries": [...], "topk": 3, "return_scores": true}`: Search-R1's server,
  `{"result": [[{"document": {"id", "contents"}, "score"}]]}`.
* `GET /healthz`, `/readyz`, `/metrics`, `/version` for whoever runs it.

A request that cannot be served is told why: 4xx with `{"detail": "…"}`.
"""

from __future__ import annotations

import json
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from rich.console import Console

from exsearch import __version__
from exsearch.errors import InputError, RetrieverError
from exsearch.records import Passage
from exsearch.retrieval.client import INDEX_HEADER
from exsearch.retrieval.info import IndexInfo
from exsearch.retrieval.retriever import LocalRetriever, Searches
from exsearch.retrieval.service_guard import Guard, Metrics

MOST_QUERIES = 256
MOST_PASSAGES = 1000
LONGEST_QUERY = 20_000
"""Characters. ColBERT reads the first thirty words or so; more than this is a mistake."""


def _not_blank(text: str) -> str:
    if not text.strip():
        raise ValueError("a query must not be empty")
    return text


Text = Annotated[str, Field(max_length=LONGEST_QUERY), AfterValidator(_not_blank)]
Queries = Annotated[list[Text], Field(min_length=1, max_length=MOST_QUERIES)]
Count = Annotated[int, Field(ge=1, le=MOST_PASSAGES)]


class SearchRequest(BaseModel):
    """Our own shape."""

    model_config = ConfigDict(extra="forbid")
    queries: Queries
    k: Count = 20


class OneQuery(BaseModel):
    """ColBERT's shape, when it is posted."""

    query: Text
    k: Count = 10


class RetrieveRequest(BaseModel):
    """Search-R1's shape."""

    queries: Queries
    topk: Count | None = None
    return_scores: bool = False


class Answer(Response):
    """JSON, written without a detour through models."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()


def create_app(searcher: Searches, info: IndexInfo, workers: int = 1) -> FastAPI:
    """The service over an opened index, searching so many batches at a time."""
    retriever = LocalRetriever(searcher, workers)
    metrics = Metrics()

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        app.state.ready = True
        yield
        app.state.ready = False
        await retriever.close()

    app = FastAPI(
        title="ExSearch retriever",
        version=__version__,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
    )
    app.state.ready = False
    app.add_middleware(Guard, metrics=metrics, headers={INDEX_HEADER: info.digest})
    _add_errors(app)
    _add_searches(app, retriever, metrics)
    _add_operations(app, info, metrics)
    return app


def _add_errors(app: FastAPI) -> None:
    @app.exception_handler(RequestValidationError)
    async def refused(_: Request, error: RequestValidationError) -> Response:
        problems = []
        for found in error.errors()[:5]:
            place = ".".join(str(part) for part in found["loc"] if part not in ("body", "query"))
            problems.append(f"{place or 'request'}: {found['msg']}")
        return Answer({"detail": "; ".join(problems)}, status_code=422)

    @app.exception_handler(RetrieverError)
    async def failed(_: Request, error: RetrieverError) -> Response:
        bad = isinstance(error.__cause__, InputError)
        return Answer({"detail": str(error)}, status_code=422 if bad else 500)


def _add_searches(app: FastAPI, retriever: LocalRetriever, metrics: Metrics) -> None:
    async def find(queries: list[str], k: int) -> list[list[Passage]]:
        found = await retriever.search(queries, k)
        metrics.searched(len(queries), retriever.batches)
        return found

    @app.post("/search")
    async def search(request: SearchRequest) -> Response:
        rows = await find(request.queries, request.k)
        return Answer([[passage.model_dump() for passage in row] for row in rows])

    @app.get("/api/search")
    async def colbert_get(
        query: Annotated[Text, Query()], k: Annotated[Count, Query()] = 10
    ) -> Response:
        return Answer(colbert_shape(query, (await find([query], k))[0]))

    @app.post("/api/search")
    async def colbert_post(request: OneQuery) -> Response:
        found = await find([request.query], request.k)
        return Answer(colbert_shape(request.query, found[0]))

    @app.post("/retrieve")
    async def retrieve(request: RetrieveRequest) -> Response:
        rows = await find(request.queries, request.topk or 3)
        return Answer({"result": [search_r1_shape(row, request.return_scores) for row in rows]})


def _add_operations(app: FastAPI, info: IndexInfo, metrics: Metrics) -> None:
    @app.get("/healthz")
    async def healthz() -> Response:
        return Answer({"status": "alive"})

    @app.get("/readyz")
    async def readyz() -> Response:
        ready = bool(app.state.ready)
        return Answer(
            {"status": "ready" if ready else "closing"}, status_code=200 if ready else 503
        )

    @app.get("/version")
    async def version() -> Response:
        return Answer(
            {
                "exsearch": __version__,
                "checkpoint": info.checkpoint,
                "corpus": info.corpus,
                "index": info.digest,
                "passages": info.passages,
            }
        )

    @app.get("/metrics")
    async def prometheus() -> Response:
        return Response(metrics.text(), media_type=metrics.content_type)


def colbert_shape(query: str, found: list[Passage]) -> dict[str, Any]:
    """What ColBERT's own server answers; `prob` is the softmax over what is returned."""
    best = max((p.score or 0.0 for p in found), default=0.0)
    masses = [math.exp((p.score or 0.0) - best) for p in found]
    total = sum(masses)
    return {
        "query": query,
        "topk": [
            {
                "pid": passage.pid,
                "rank": rank,
                "score": passage.score,
                "prob": mass / total,
                "text": f"{passage.title} | {passage.text}",
            }
            for rank, (passage, mass) in enumerate(zip(found, masses, strict=True), 1)
        ],
    }


def search_r1_shape(found: list[Passage], scores: bool) -> list[dict[str, Any]]:
    """What Search-R1's server answers for a query: with scores, each document is wrapped."""
    documents = [
        {"id": passage.pid, "contents": f'"{passage.title}"\n{passage.text}'} for passage in found
    ]
    if not scores:
        return documents
    return [
        {"document": document, "score": passage.score}
        for document, passage in zip(documents, found, strict=True)
    ]


def shares(processors: int) -> tuple[int, int]:
    """(workers, threads of each): few threads per worker waste little on each other.

    A query is a small piece of work. Two threads that split it wait for one another
    most of the time, the more so when other programs want the processors; two workers
    with a batch each do not.
    """
    workers = max(1, min(4, processors))
    return workers, processors // workers


def serve(
    searcher: Searches, info: IndexInfo, host: str, port: int, workers: int = 1, drain: int = 30
) -> None:
    """Serve until SIGTERM or SIGINT; requests under way are finished first.

    Args:
        workers: batches searched at the same time.
        drain: seconds that open requests may take once it has been told to end.
    """
    import signal

    import uvicorn

    # uvicorn raises the signal again once it has closed; arriving here it means "done".
    signal.signal(signal.SIGTERM, lambda *_: None)
    uvicorn.run(
        create_app(searcher, info, workers),
        host=host,
        port=port,
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=drain,
        timeout_keep_alive=30,
        server_header=False,
    )


def serve_folder(folder: str, checkpoint: str | None, host: str, port: int) -> None:
    """Open an index and serve it with all processors. The process belongs to the service:
    torch's threads are set for the whole of it.

    Raises:
        StorageError: there is no index in `folder`.
    """
    import torch

    from exsearch.retrieval.ranker import processors
    from exsearch.retrieval.searcher import Searcher

    workers, threads = shares(processors())
    torch.set_num_threads(threads)
    searcher = Searcher(folder, checkpoint, threads)
    Console(stderr=True, highlight=False).print(
        f"serving {searcher.info.passages:,} passages of {folder} at http://{host}:{port}",
        markup=False,
    )
    serve(searcher, searcher.info, host, port, workers)
