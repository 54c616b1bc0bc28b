"""The service as a process of its own, the retriever by configuration, the commands."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import pytest
from retrieval_parts import corpus, questions

from exsearch.config import RetrievalConfig, RunConfig
from exsearch.errors import StorageError
from exsearch.records import Passage
from exsearch.retrieval import LocalRetriever, RetrieverClient, Searcher, open_retriever

pytestmark = pytest.mark.retrieval


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@pytest.mark.timeout(180)
async def test_the_service_answers_alike_and_finishes_what_it_began(
    index: Path, searcher: Searcher
) -> None:
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "exsearch", "retriever", "--index", str(index), "--port", str(port)],
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )
    try:
        settings = RetrievalConfig(url=f"http://127.0.0.1:{port}", timeout=60)
        client = RetrieverClient(settings)
        assert client.digest == searcher.digest
        assert await client.search(questions(), 6) == searcher.search(questions(), 6)
        results: list[httpx.Response] = []

        def one(query: str) -> None:
            body = {"queries": [query] * 40, "k": 50}
            results.append(httpx.post(f"{client.url}/search", json=body, timeout=60))

        threads = [threading.Thread(target=one, args=(q,)) for q in questions(6)]
        for thread in threads:
            thread.start()
        deadline = time.monotonic() + 20
        while httpx.get(f"{client.url}/metrics").text.count("batch_queries") == 0:
            assert time.monotonic() < deadline
        time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        for thread in threads:
            thread.join()
        assert [r.status_code for r in results] == [200] * 6
        assert process.wait(30) == 0
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{client.url}/healthz")
        await client.close()
    finally:
        process.kill()
        process.wait()


async def test_open_retriever_opens_the_runs_index(index: Path, config: RetrievalConfig) -> None:
    run = RunConfig(run=str(index.parent), retrieval=config)
    retriever = open_retriever(run)
    assert isinstance(retriever, LocalRetriever)
    (row,) = await retriever.search([questions(1)[0]], 2)
    assert row[0].pid == "p0"
    await retriever.close()
    with pytest.raises(StorageError, match="is no index"):
        open_retriever(RunConfig(run=str(index), retrieval=config))


def line(passage: Passage) -> str:
    return json.dumps({"id": passage.pid, "title": passage.title, "text": passage.text})


def test_the_command_line(config: RetrievalConfig, tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from exsearch.cli.app import app

    file = tmp_path / "corpus.jsonl"
    file.write_text("".join(f"{line(p)}\n" for p in corpus(30)), encoding="utf-8")
    target = str(tmp_path / "index")
    common = [
        "--corpus",
        str(file),
        "--index",
        target,
        "-s",
        f"retrieval.checkpoint={config.checkpoint}",
    ]
    run = CliRunner().invoke
    dry = run(app, ["index", *common, "--dry-run", "--sample", "8", "--json"])
    assert json.loads(dry.stdout)["passages"] == 30
    assert not Path(target).exists()
    shown = run(app, ["index", *common, "--dry-run", "--sample", "8", "--passages", "21000000"])
    assert "21,000,000 passages" in shown.output + shown.stderr
    part = run(app, ["index", *common, "--shard", "0/1", "--json"])
    assert json.loads(part.stdout) == {"encoded": 1}
    merged = run(app, ["index", *common, "--merge", "--json"])
    assert json.loads(merged.stdout)["passages"] == 30
    built = run(app, ["index", *common, "--json"])
    assert json.loads(built.stdout) == json.loads(merged.stdout)
    found = run(app, ["search", questions(1)[0], "-k", "2", "--index", target, "--json"])
    assert json.loads(found.stdout)["passages"][0]["pid"] == "p0"
    table = run(app, ["search", questions(1)[0], "--index", target])
    assert corpus(1)[0].title in table.stdout
    assert "no corpus" in str(run(app, ["index"]).exception)
