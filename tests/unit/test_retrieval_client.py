"""The client against a real HTTP server that misbehaves on purpose."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from exsearch.config import RetrievalConfig, RunConfig
from exsearch.errors import InputError, RetrieverError
from exsearch.retrieval import RetrieverClient, open_retriever

pytestmark = pytest.mark.unit


@dataclass
class Script:
    """What the server does with each POST, in order; afterwards it behaves."""

    acts: list[Any] = field(default_factory=list)
    seen: list[dict[str, Any]] = field(default_factory=list)
    connections: set[tuple[str, int]] = field(default_factory=set)
    index: str = "index-1"
    version: int = 200


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    script: Script

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self.answer(self.script.version, {"index": self.script.index})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.script.seen.append(body)
        self.script.connections.add(self.client_address)
        act = self.script.acts.pop(0) if self.script.acts else "good"
        if act == "drop":
            self.close_connection = True
            self.connection.close()
        elif isinstance(act, float):
            time.sleep(act)
            self.answer(200, [[] for _ in body["queries"]])
        elif isinstance(act, int):
            self.answer(act, {"detail": f"scripted {act}"})
        elif act == "good":
            self.answer(200, [[passage(q)] * min(body["k"], 2) for q in body["queries"]])
        else:
            self.answer(200, act)

    def answer(self, code: int, value: Any) -> None:
        data = json.dumps(value).encode()
        try:
            self.send_response(code)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(data)))
            self.send_header("x-exsearch-index", self.script.index)
            self.end_headers()
            self.wfile.write(data)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True


def passage(query: str) -> dict[str, Any]:
    return {"pid": "7", "title": f"About {query}", "text": "…", "score": 1.5}


@pytest.fixture
def server() -> Iterator[tuple[str, Script]]:
    script = Script()
    handler = type("Scripted", (Handler,), {"script": script})
    running = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    running.daemon_threads = True
    threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True).start()
    yield f"http://127.0.0.1:{running.server_port}", script
    running.shutdown()
    running.server_close()


def config(url: str, **more: Any) -> RetrievalConfig:
    return RetrievalConfig(**{"url": url, "timeout": 5.0, "retries": 3, **more})


async def ask(client: RetrieverClient, *queries: str, k: int = 2) -> list[list[str]]:
    return [[p.title for p in row] for row in await client.search(list(queries), k)]


async def test_answers_and_reuses_its_connection(server: tuple[str, Script]) -> None:
    url, script = server
    client = RetrieverClient(config(url))
    assert client.digest == "index-1"
    for i in range(5):
        assert await ask(client, f"q{i}") == [[f"About q{i}"] * 2]
    assert len(script.connections) == 1
    assert client.stats.requests == client.stats.answered == 5
    assert client.stats.mean_latency > 0
    await client.close()


@pytest.mark.parametrize("act", [500, 503, 429, "drop"])
async def test_passing_failures_are_tried_again(server: tuple[str, Script], act: Any) -> None:
    url, script = server
    script.acts = [act, act]
    client = RetrieverClient(config(url))
    assert await ask(client, "x") == [["About x"] * 2]
    assert (client.stats.retries, client.stats.requests, client.stats.failures) == (2, 3, 0)
    await client.close()


async def test_gives_up_after_its_retries(server: tuple[str, Script]) -> None:
    url, script = server
    script.acts = [500] * 20
    client = RetrieverClient(config(url, retries=2))
    with pytest.raises(RetrieverError, match="500, 3 times"):
        await ask(client, "x")
    assert len(script.seen) == 3
    assert client.stats.failures == 1
    await client.close()


async def test_refusals_are_not_tried_again(server: tuple[str, Script]) -> None:
    url, script = server
    script.acts = [422]
    client = RetrieverClient(config(url))
    with pytest.raises(RetrieverError, match=r"422.*scripted 422"):
        await ask(client, "x")
    assert len(script.seen) == 1
    await client.close()


async def test_a_slow_server_meets_the_deadline(server: tuple[str, Script]) -> None:
    url, script = server
    script.acts = [3.0] * 9
    client = RetrieverClient(config(url, timeout=0.3))
    with pytest.raises(RetrieverError, match=r"no answer within 0.3 s"):
        await asyncio.wait_for(ask(client, "x"), 2.5)
    await client.close()


async def test_a_server_that_died_is_an_error_not_a_hang(server: tuple[str, Script]) -> None:
    url, _ = server
    client = RetrieverClient(config(url, timeout=1.0, retries=1))
    client._http.base_url = "http://127.0.0.1:9"
    with pytest.raises(RetrieverError, match="ConnectError"):
        await asyncio.wait_for(ask(client, "x"), 5)
    await client.close()


def test_no_server_at_all() -> None:
    with pytest.raises(RetrieverError, match="no retriever answers"):
        RetrieverClient(config("http://127.0.0.1:9", timeout=0.2))


@pytest.mark.parametrize(
    "answer",
    [{"not": "rows"}, [[{"pid": 1}]], [], [[], []]],
    ids=["shape", "passage", "too few", "too many"],
)
async def test_nonsense_is_named(server: tuple[str, Script], answer: Any) -> None:
    url, script = server
    script.acts = [answer]
    client = RetrieverClient(config(url))
    with pytest.raises(RetrieverError, match=r"does not answer as|answered 1 queries with"):
        await ask(client, "x")
    await client.close()


async def test_another_index_under_way_is_refused(server: tuple[str, Script]) -> None:
    url, script = server
    client = RetrieverClient(config(url))
    script.index = "index-2"
    with pytest.raises(RetrieverError, match="now serves index index-2, not index-1"):
        await ask(client, "x")
    await client.close()


async def test_the_cache_outlives_the_client(server: tuple[str, Script], tmp_path: Path) -> None:
    url, script = server
    settings = config(url, cache=str(tmp_path / "cache"))
    first = RetrieverClient(settings)
    before = await first.search(["a", "b"], 2)
    await first.close()
    second = RetrieverClient(settings)
    assert await second.search(["b", "c", "a"], 2) == [
        before[1],
        *await second.search(["c"], 2),
        before[0],
    ]
    assert [request["queries"] for request in script.seen] == [["a", "b"], ["c"]]
    assert second.stats.cache_hits == 3
    await second.search(["a"], 1)
    assert script.seen[-1] == {"queries": ["a"], "k": 1}, "another k is another question"
    await second.close()
    script.index = "index-2"
    third = RetrieverClient(settings)
    await third.search(["a"], 2)
    assert third.stats.cache_hits == 0, "another index is another question"
    await third.close()


async def test_failures_are_not_cached(server: tuple[str, Script], tmp_path: Path) -> None:
    url, script = server
    script.acts = [422]
    client = RetrieverClient(config(url, cache=str(tmp_path)))
    with pytest.raises(RetrieverError):
        await ask(client, "x")
    assert await ask(client, "x") == [["About x"] * 2]
    await client.close()


async def test_a_pickle_in_the_cache_is_not_opened(
    server: tuple[str, Script], tmp_path: Path
) -> None:
    import diskcache

    url, _ = server
    with diskcache.Cache(str(tmp_path), disk=diskcache.JSONDisk) as cache:
        cache.set(["index-1", 2, "x"], [])
        cache._sql("UPDATE Cache SET mode = ?", (diskcache.core.MODE_PICKLE,))
    client = RetrieverClient(config(url, cache=str(tmp_path)))
    with pytest.raises(RetrieverError, match="pickle"):
        await ask(client, "x")
    await client.close()


async def test_open_retriever_prefers_the_service(server: tuple[str, Script]) -> None:
    url, _ = server
    retriever = open_retriever(RunConfig(retrieval=config(url)))
    assert isinstance(retriever, RetrieverClient)
    await retriever.close()


def test_the_client_needs_no_torch() -> None:
    import subprocess
    import sys

    code = (
        "import sys; from exsearch.retrieval import RetrieverClient, open_retriever; "
        "assert 'torch' not in sys.modules and 'colbert' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_url_that_is_none() -> None:
    with pytest.raises(InputError, match="must begin with http"):
        RetrieverClient(config("localhost:8893"))


def test_a_server_that_is_no_retriever_is_told_at_once(server: tuple[str, Script]) -> None:
    url, script = server
    script.version = 404
    start = time.monotonic()
    with pytest.raises(RetrieverError, match="404"):
        RetrieverClient(config(url, timeout=20.0))
    assert time.monotonic() - start < 10


async def test_a_broken_cache_is_named(server: tuple[str, Script], tmp_path: Path) -> None:
    import diskcache

    url, _ = server
    with diskcache.Cache(str(tmp_path), disk=diskcache.JSONDisk) as cache:
        cache.set(["index-1", 2, "x"], {"not": "rows"})
    client = RetrieverClient(config(url, cache=str(tmp_path)))
    with pytest.raises(RetrieverError, match=r"cache of results .* cannot be used"):
        await ask(client, "x")
    await client.close()
