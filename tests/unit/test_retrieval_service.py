"""The service's three shapes, its refusals and its batching, over a searcher made of dicts."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from exsearch.errors import RetrieverError
from exsearch.records import Passage
from exsearch.retrieval.info import IndexInfo
from exsearch.retrieval.retriever import BATCH, LocalRetriever
from exsearch.retrieval.service import colbert_shape, create_app

pytestmark = pytest.mark.unit

INFO = IndexInfo(
    digest="d1", corpus="c1", checkpoint="k1", checkpoint_path="/nowhere", passages=3,
    vectors=30, centroids=4, bytes=100, plan="p1", nbits=2, doc_maxlen=180, query_maxlen=32,
)  # fmt: skip


class Fake:
    """Finds three passages whatever is asked; notes the batches it was given."""

    digest = "d1"

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.gate = threading.Event()
        self.gate.set()
        self.error: Exception | None = None

    def search(self, queries: list[str], k: int) -> list[list[Passage]]:
        self.batches.append(queries)
        self.gate.wait(5)
        if self.error:
            raise self.error
        return [[found(q, rank) for rank in range(min(k, 3))] for q in queries]


def found(query: str, rank: int) -> Passage:
    return Passage(pid=str(rank), title=f"T{rank}", text=f"on {query}", score=9.0 - rank)


@pytest.fixture
def fake() -> Fake:
    return Fake()


@pytest.fixture
async def http(fake: Fake) -> AsyncIterator[httpx.AsyncClient]:
    app = create_app(fake, INFO)
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://test") as client,
    ):
        yield client


async def test_search(http: httpx.AsyncClient) -> None:
    answer = await http.post("/search", json={"queries": ["a", "b"], "k": 2})
    assert answer.status_code == 200
    assert answer.headers["x-exsearch-index"] == "d1"
    assert answer.json()[1] == [
        {"pid": "0", "title": "T0", "text": "on b", "score": 9.0},
        {"pid": "1", "title": "T1", "text": "on b", "score": 8.0},
    ]


async def test_colberts_shape_by_get_and_post(http: httpx.AsyncClient) -> None:
    got = await http.get("/api/search", params={"query": "a b?&", "k": "2"})
    posted = await http.post("/api/search", json={"query": "a b?&", "k": 2})
    assert got.json() == posted.json()
    assert got.json()["query"] == "a b?&"
    first, second = got.json()["topk"]
    assert (first["pid"], first["rank"], first["text"]) == ("0", 1, "T0 | on a b?&")
    assert first["prob"] + second["prob"] == pytest.approx(1.0)
    assert first["prob"] / second["prob"] == pytest.approx(2.718281828)


def test_probabilities_of_large_scores_do_not_overflow() -> None:
    rows = [Passage(pid="1", title="", text="", score=5000.0), Passage(pid="2", title="", text="")]
    assert [p["prob"] for p in colbert_shape("q", rows)["topk"]] == [1.0, 0.0]
    assert colbert_shape("q", [])["topk"] == []


async def test_search_r1s_shape(http: httpx.AsyncClient) -> None:
    body: dict[str, Any] = {"queries": ["a"], "topk": 1, "return_scores": True}
    answer = (await http.post("/retrieve", json=body)).json()
    document = {"id": "0", "contents": '"T0"\non a'}
    assert answer == {"result": [[{"document": document, "score": 9.0}]]}
    bare = (await http.post("/retrieve", json={"queries": ["a"], "topk": 1})).json()
    assert bare == {"result": [[document]]}
    default = (await http.post("/retrieve", json={"queries": ["a"]})).json()
    assert len(default["result"][0]) == 3


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"queries": [""]}, "queries.0: .*empty"),
        ({"queries": ["a", "  \n"]}, "queries.1: .*empty"),
        ({"queries": []}, "at least 1"),
        ({"queries": ["a"] * 257}, "at most 256"),
        ({"queries": "a"}, "valid list"),
        ({"queries": [1]}, "valid string"),
        ({"queries": ["a"], "k": 0}, "k: .*greater than or equal to 1"),
        ({"queries": ["a"], "k": 1001}, "k: .*less than or equal to 1000"),
        ({"queries": ["a"], "k": "many"}, "k: .*valid integer"),
        ({"queries": ["a" * 20_001]}, "at most 20000"),
        ({"queries": ["a"], "kk": 1}, "kk: .*not permitted"),
        ({"k": 5}, "queries: Field required"),
        ([], "request: .*valid dictionary"),
    ],
)
async def test_refusals_say_why(http: httpx.AsyncClient, fake: Fake, body: Any, says: str) -> None:
    import re

    answer = await http.post("/search", json=body)
    assert answer.status_code == 422
    assert re.search(says, answer.json()["detail"]), answer.text
    assert fake.batches == []


@pytest.mark.parametrize(
    ("content", "kind", "status", "says"),
    [
        (b"{", "application/json", 422, "JSON"),
        (b"\xff\xfe", "application/json", 422, "JSON|UTF|decode|parsing"),
        (b'{"queries": ["\\ud800"]}', "application/json", 422, "unicode|string"),
        (b'{"queries": ["a"]}', "text/plain", 415, "application/json"),
        (b"", "", 415, "application/json"),
        (b'{"queries": ["' + b"a" * (1 << 20) + b'"]}', "application/json", 413, "1048576 bytes"),
    ],
    ids=["cut", "binary", "surrogate", "type", "none", "1 MB"],
)
async def test_broken_requests(
    http: httpx.AsyncClient, content: bytes, kind: str, status: int, says: str
) -> None:
    import re

    headers = {"content-type": kind} if kind else {}
    answer = await http.post("/search", content=content, headers=headers)
    assert answer.status_code == status, answer.text
    assert re.search(says, answer.json()["detail"]), answer.text


async def test_a_body_without_end_is_cut_off_while_it_is_read(http: httpx.AsyncClient) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while sent < 50 << 20:
            sent += 1 << 16
            yield b"a" * (1 << 16)

    answer = await http.post(
        "/search", content=endless(), headers={"content-type": "application/json"}
    )
    assert answer.status_code == 413
    assert sent < 3 << 20


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(body=st.binary(max_size=200))
async def test_no_body_makes_it_fall_over(http: httpx.AsyncClient, body: bytes) -> None:
    answer = await http.post("/search", content=body, headers={"content-type": "application/json"})
    assert 400 <= answer.status_code < 500


async def test_get_refusals(http: httpx.AsyncClient) -> None:
    assert (await http.get("/api/search", params={"query": ""})).status_code == 422
    assert (await http.get("/api/search")).status_code == 422
    assert (await http.get("/api/search", params={"query": "a", "k": "0"})).status_code == 422
    assert (await http.get("/search")).status_code == 405
    assert (await http.get("/nothing")).status_code == 404


async def test_operations(http: httpx.AsyncClient) -> None:
    assert (await http.get("/healthz")).status_code == 200
    assert (await http.get("/readyz")).status_code == 200
    version = (await http.get("/version")).json()
    assert (version["checkpoint"], version["corpus"], version["index"]) == ("k1", "c1", "d1")


async def test_not_ready_before_and_after(fake: Fake) -> None:
    app = create_app(fake, INFO)
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        assert (await client.get("/readyz")).status_code == 503
        async with app.router.lifespan_context(app):
            assert (await client.get("/readyz")).status_code == 200
        assert (await client.get("/readyz")).status_code == 503


async def test_metrics_have_few_labels(http: httpx.AsyncClient) -> None:
    await http.post("/search", json={"queries": ["a", "b"]})
    await http.post("/search", json={})
    for name in ("x", "y"):
        await http.get(f"/{name}")
    text = (await http.get("/metrics")).text
    assert 'exsearch_retriever_requests_total{code="200",route="/search"} 1.0' in text
    assert 'exsearch_retriever_requests_total{code="422",route="/search"} 1.0' in text
    assert 'exsearch_retriever_requests_total{code="404",route="other"} 2.0' in text
    assert "exsearch_retriever_queries_total 2.0" in text
    assert "exsearch_retriever_batch_queries_sum 2.0" in text


async def test_a_failing_index_is_a_500_that_says_so(http: httpx.AsyncClient, fake: Fake) -> None:
    fake.error = OSError("disk gone")
    answer = await http.post("/search", json={"queries": ["a"]})
    assert answer.status_code == 500
    assert "disk gone" in answer.json()["detail"]
    fake.error = None
    assert (await http.post("/search", json={"queries": ["a"]})).status_code == 200


async def test_calls_that_wait_are_searched_together(fake: Fake) -> None:
    retriever = LocalRetriever(fake)
    fake.gate.clear()
    calls = [asyncio.create_task(retriever.search([f"q{i}"], 1)) for i in range(40)]
    odd = asyncio.create_task(retriever.search(["other k"], 2))
    await asyncio.sleep(0.05)
    fake.gate.set()
    rows = await asyncio.gather(*calls)
    assert [row[0][0].text for row in rows] == [f"on q{i}" for i in range(40)]
    assert len((await odd)[0]) == 2
    assert sum(len(batch) for batch in fake.batches) == 41
    assert len(fake.batches) <= 4
    assert max(len(batch) for batch in fake.batches) == BATCH
    assert ["other k"] in fake.batches, "another k is another batch"
    await retriever.close()


async def test_a_caller_that_left_holds_nobody_up(fake: Fake) -> None:
    retriever = LocalRetriever(fake)
    fake.gate.clear()
    first = asyncio.create_task(retriever.search(["first"], 1))
    await asyncio.sleep(0.02)
    gone = asyncio.create_task(retriever.search(["gone"], 1))
    stays = asyncio.create_task(retriever.search(["stays"], 1))
    await asyncio.sleep(0.02)
    gone.cancel()
    fake.gate.set()
    assert (await stays)[0][0].text == "on stays"
    assert (await first)[0][0].text == "on first"
    assert not any("gone" in batch for batch in fake.batches)
    await retriever.close()


async def test_one_failed_batch_does_not_poison_the_next(fake: Fake) -> None:
    retriever = LocalRetriever(fake)
    fake.error = RuntimeError("boom")
    with pytest.raises(RetrieverError, match="boom"):
        await retriever.search(["a"], 1)
    fake.error = None
    assert await retriever.search([], 1) == []
    assert len(await retriever.search(["a"], 1)) == 1
    await retriever.close()


def test_works_in_one_event_loop_after_another(fake: Fake) -> None:
    retriever = LocalRetriever(fake)
    for _ in range(2):
        assert len(asyncio.run(retriever.search(["a"], 1))) == 1
    asyncio.run(retriever.close())
