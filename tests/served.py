"""A predictor over scripted parts, on a real port: what the network sees is real."""

from __future__ import annotations

import asyncio
import re
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from opentelemetry import trace
from scripted import FakeRetriever, ScriptedPolicy, passages

from exsearch.agent.chat import ChatFormat
from exsearch.agent.episode import Setting
from exsearch.agent.policies.base import Sampling
from exsearch.config import AgentConfig, ServingConfig
from exsearch.serving.admission import Admission
from exsearch.serving.agent import ServedAgent
from exsearch.serving.app import create_app
from exsearch.serving.feedback import LearningLog
from exsearch.serving.metrics import Metrics
from exsearch.serving.server import Server, uvicorn_config

CODE = re.compile(r"code (\w+)")


def question(code: str) -> str:
    return f"What is the meaning of code {code}?"


@dataclass
class Served:
    """A running predictor."""

    url: str
    server: Server
    agents: list[ServedAgent]
    loop: asyncio.AbstractEventLoop
    policies: list[ScriptedPolicy] = field(default_factory=list)

    @property
    def admission(self) -> Admission:
        return self.agents[0].admission

    def tasks(self) -> int:
        """Tasks of the server's loop, now."""

        async def count() -> int:
            return len(asyncio.all_tasks())

        return asyncio.run_coroutine_threadsafe(count(), self.loop).result(5)

    def stop(self) -> None:
        """As SIGTERM does."""
        self.loop.call_soon_threadsafe(self.server.handle_exit, 15, None)

    def settled(self, seconds: float = 5) -> bool:
        """Whether nobody holds a place any more, soon."""
        end = time.monotonic() + seconds
        while self.admission.held and time.monotonic() < end:
            time.sleep(0.01)
        return self.admission.held == 0


def write(chat: ChatFormat):
    """An author whose turns depend on its own question only: two searches, then the code."""

    def author(prompt: Sequence[int], how: Sampling) -> str:
        text = chat.decode(list(prompt))
        [code, *_] = CODE.findall(text) or ["none"]  # a probe names no code
        searches = text.count("<SEARCH>")
        if searches == 3 or "final answer" in text.rpartition("<SEARCH>")[2].lower():
            return f"It means {code}."
        if searches == 0:
            return f"<QUERY> code {code}"
        if searches == 1:
            return f"<FACT> first of {code} <QUERY> more of code {code}"
        return f"<FACT> second of {code} <FINAL>"

    return author


def agent(
    chat: ChatFormat,
    config: ServingConfig,
    admission: Admission,
    metrics: Metrics,
    *,
    name: str = "exsearch",
    retriever: Any = None,
    tracer: trace.Tracer | None = None,
    policy: Any = None,
    mortal: bool = True,
) -> ServedAgent:
    policy = policy or ScriptedPolicy(chat, write(chat))
    how = AgentConfig(selection="top_n", passages=3, top_n=2, max_steps=4)
    setting = Setting(policy, retriever or FakeRetriever(passages()), how)
    role = "candidate" if name.endswith("candidate") else "champion"
    tracer = tracer or trace.NoOpTracer()
    return ServedAgent(name, role, setting, config, admission, metrics, tracer, mortal=mortal)


@contextmanager
def serving(
    chat: ChatFormat, *, token: str = "", candidate: bool = False, watch: bool = True, **more: Any
) -> Iterator[Served]:
    """A predictor on a free port; `more` are settings of `serving`, or parts for `agent`."""
    parts = {k: more.pop(k) for k in ("retriever", "tracer", "policy", "mortal") if k in more}
    config = ServingConfig.model_validate({"drain": 2, "probe": 0.2, **more})
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    started, ready = [], threading.Event()

    async def main() -> None:
        admission, metrics = Admission(config.concurrency, config.queue), Metrics()
        agents = [agent(chat, config, admission, metrics, **parts)]
        if candidate:
            other = agent(chat, config, admission, metrics, name="exsearch-candidate")
            agents.append(other)
        metrics.follow(admission, [a.health for a in agents], agents[0].setting.retriever)
        app = create_app(agents, config, metrics, LearningLog(config.learning), token)
        server = Server(uvicorn_config(app, "127.0.0.1", port, config.drain), agents, config.drain)
        loop = asyncio.get_running_loop()
        started.append(Served(f"http://127.0.0.1:{port}", server, agents, loop))
        watches = [asyncio.create_task(a.health.watch(a.setting)) for a in agents if watch]
        done = asyncio.create_task(server._serve(None))
        while not server.started and not done.done():
            await asyncio.sleep(0.01)
        ready.set()
        await done
        for task in watches:
            task.cancel()

    thread = threading.Thread(target=lambda: asyncio.run(main()), daemon=True)
    thread.start()
    assert ready.wait(20), "the predictor did not start"
    try:
        yield started[0]
    finally:
        started[0].stop()
        thread.join(config.drain + 10)
        assert not thread.is_alive(), "the predictor did not stop"
