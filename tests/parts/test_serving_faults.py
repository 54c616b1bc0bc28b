"""What goes wrong while a predictor serves: nothing hangs, leaks, or answers the wrong client."""

from __future__ import annotations

import asyncio
import gc
import http.client
import json
import subprocess
import sys
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from scripted import FakeRetriever, ScriptedPolicy, passages
from search_server import serving as search_service
from served import Served, question, serving, write

from exsearch.config import RetrievalConfig
from exsearch.retrieval.client import RetrieverClient
from exsearch.serving.guard import Guard
from exsearch.serving.metrics import Metrics

pytestmark = pytest.mark.serving

CHAT = "/openai/v1/chat/completions"


def ask(code: str, **more: object) -> dict[str, object]:
    message = {"role": "user", "content": question(code)}
    return {"model": "exsearch", "messages": [message], **more}


def leave(running: Served, body: dict[str, object], after: float) -> None:
    """Ask, and close the connection before the answer."""
    parts = urlsplit(running.url)
    connection = http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=10)
    sent = json.dumps(body)
    connection.request("POST", CHAT, sent, {"content-type": "application/json"})
    time.sleep(after)
    connection.close()


def metric(running: Served, line: str) -> float:
    text = httpx.get(running.url + "/metrics").text
    found = [row.split()[-1] for row in text.splitlines() if row.startswith(line)]
    return float(found[0]) if found else 0.0


@pytest.mark.parametrize("stream", [False, True])
def test_clients_that_leave_free_the_engine(chatml, stream: bool) -> None:
    policy = ScriptedPolicy(chatml, write(chatml), pause=lambda how: 0.3)
    with serving(chatml, policy=policy, watch=False, concurrency=4, queue=200) as running:
        httpx.post(running.url + CHAT, json=ask("warm"), timeout=20)
        gc.collect()
        tasks, objects = running.tasks(), len(gc.get_objects())
        threads = [
            threading.Thread(
                target=leave, args=(running, ask(f"L{n}", stream=stream), 0.05 + 0.01 * (n % 20))
            )
            for n in range(200)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert running.settled(), f"{running.admission.held} places are still held"
        turns = len(policy.prompts)
        time.sleep(0.7)
        assert len(policy.prompts) == turns, "an episode goes on that nobody waits for"
        assert metric(running, 'exsearch_agent_failures_total{reason="disconnected"}') > 0
        answer = httpx.post(running.url + CHAT, json=ask("after"), timeout=20).json()
        assert answer["choices"][0]["message"]["content"] == "It means after."
        assert running.tasks() <= tasks + 1
        gc.collect()
        assert len(gc.get_objects()) < objects + 20_000


def test_sigterm_finishes_what_can_be_and_fails_the_rest(chatml) -> None:
    """Two run and end within the drain; those behind them are failed, each with a status."""
    policy = ScriptedPolicy(chatml, write(chatml), pause=lambda how: 0.5)
    got: dict[str, httpx.Response] = {}
    with serving(chatml, policy=policy, watch=False, concurrency=2, queue=20, drain=2.5) as running:

        def post(code: str) -> None:
            got[code] = httpx.post(
                running.url + CHAT, json=ask(code, stream=code > "S5"), timeout=30
            )

        threads = [threading.Thread(target=post, args=(f"S{n}",)) for n in range(9)]
        for thread in threads:
            thread.start()
        while running.admission.held < 9:
            time.sleep(0.01)
        running.stop()
        for thread in threads:
            thread.join(20)
            assert not thread.is_alive(), "a request hangs"
    whole = [r for code, r in got.items() if code <= "S5"]
    assert {r.status_code for r in whole} <= {200, 503}
    answered = [code for code, r in got.items() if f"It means {code}." in r.text]
    assert 2 <= len(answered) < 9
    for code, response in got.items():
        if code not in answered:
            assert '"code":"closing"' in response.text
            assert code <= "S5" or response.text.endswith("data: [DONE]\n\n")


def test_new_questions_are_refused_while_it_drains(chatml) -> None:
    policy = ScriptedPolicy(chatml, write(chatml), pause=lambda how: 0.3)
    with serving(chatml, policy=policy, watch=False) as running, httpx.Client() as client:
        client.get(running.url + "/healthz")  # a connection that is open already
        first = threading.Thread(
            target=httpx.post, args=(running.url + CHAT,), kwargs={"json": ask("x")}
        )
        first.start()
        while not running.admission.held:
            time.sleep(0.01)
        running.admission.closing = True
        refused = client.post(running.url + CHAT, json=ask("y"))
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "closing")
        assert client.get(running.url + "/v2/health/ready").status_code == 503
        first.join()


def test_a_slow_retriever_meets_the_deadline(chatml) -> None:
    class Slow(FakeRetriever):
        async def search(self, queries, k):
            await asyncio.sleep(30)
            return []

    with serving(chatml, retriever=Slow(), watch=False, deadline=0.5) as running:
        began = time.monotonic()
        answer = httpx.post(running.url + CHAT, json=ask("slow"))
        assert answer.status_code == 504
        assert time.monotonic() - began < 3


def test_a_retriever_that_restarts_is_waited_for(chatml) -> None:
    """The sidecar is gone for a while, and comes back at the same address."""
    found = {"code": passages()}

    def search(query: str, k: int):
        return found["code"][:k]

    with search_service(search) as url:
        port = urlsplit(url).port
        config = RetrievalConfig(url=url, retries=1000, timeout=15)
        retriever = RetrieverClient(config)
    # it is closed now
    with serving(chatml, retriever=retriever) as running:
        got: list[httpx.Response] = []
        asking = threading.Thread(
            target=lambda: got.append(httpx.post(running.url + CHAT, json=ask("R1"), timeout=30))
        )
        asking.start()
        time.sleep(1.5)
        assert not got
        with search_service(search, port=port):
            asking.join(20)
            assert got[0].json()["choices"][0]["message"]["content"] == "It means R1."
            end = time.monotonic() + 10
            while metric(running, "exsearch_agent_retriever_ready") != 1.0:
                assert time.monotonic() < end
                time.sleep(0.1)


def test_the_command_says_what_is_wrong_at_the_start(tmp_path: Path) -> None:
    command = [str(Path(sys.executable).parent / "exsearch"), "serve"]
    cases = {
        "serving.learning.redact=no.such:thing": "cannot import",
        "serving.learning.folder=/proc/nowhere": "serving.learning.folder",
        "serving.concurrency=0": "serving.concurrency",
    }
    for setting, said in cases.items():
        done = subprocess.run(
            [*command, "--set", setting, "--set", f"run={tmp_path}", "--model", str(tmp_path)],
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode in (1, 2), done.stderr
        assert said in done.stderr
        assert "Traceback" not in done.stderr


async def test_what_follows_an_answer_is_not_taken_for_a_client_that_left() -> None:
    """A server reports the connection as closed once the answer is out; work may still go on."""
    finished, out = asyncio.Event(), asyncio.Event()
    measured = Metrics()

    async def app(scope, receive, send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"x", "more_body": False})
        await asyncio.sleep(0.05)
        finished.set()

    async def receive() -> dict[str, object]:
        await out.wait()
        return {"type": "http.disconnect"}

    async def send(message: dict[str, object]) -> None:
        if message["type"] == "http.response.body":
            out.set()

    scope = {"type": "http", "method": "GET", "path": "/", "headers": []}
    await Guard(app, measured, "")(scope, receive, send)
    assert finished.is_set()
    assert b'exsearch_agent_requests_total{code="200",route="other"} 1.0' in measured.text()
