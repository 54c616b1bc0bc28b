"""Start everything, serve, drain, close everything: `exsearch serve`."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from types import FrameType

import httpx
import uvicorn

from exsearch.agent.episode import Setting
from exsearch.agent.policies import open_policy
from exsearch.config import RunConfig
from exsearch.errors import ExSearchError, InputError, RetrieverError
from exsearch.retrieval.retriever import open_retriever
from exsearch.serving.admission import Admission
from exsearch.serving.agent import ServedAgent
from exsearch.serving.app import create_app
from exsearch.serving.feedback import LearningLog
from exsearch.serving.metrics import Metrics
from exsearch.serving.sidecar import sidecar
from exsearch.serving.tracing import open_tracer

log = logging.getLogger(__name__)

START = 900.0
"""Seconds that the retriever gets to open its index."""
LAST = 5.0
"""Seconds after the drain for the last words of what was ended."""
ENDLESS = 1_000
"""Attempts of a search: its deadline ends them. A sidecar takes seconds to start again."""


class Server(uvicorn.Server):
    """uvicorn, which stops taking questions as soon as it is told to end."""

    def __init__(self, config: uvicorn.Config, agents: Sequence[ServedAgent], drain: float) -> None:
        super().__init__(config)
        self._agents, self._drain = agents, drain
        self._ending: asyncio.Task[None] | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Refuse new questions, let open ones finish, fail what is left after the drain."""
        super().handle_exit(sig, frame)
        for agent in self._agents:
            agent.admission.closing = True
        if self._ending is None:
            # uvicorn calls this from a signal handler, within the loop's own thread.
            self._ending = asyncio.get_running_loop().create_task(self._end_all())

    def watch_ended(self, watch: asyncio.Task[None]) -> None:
        """A health watch that broke leaves nobody to say whether this server is ready: end it."""
        if not watch.cancelled() and (error := watch.exception()):
            log.critical("broken", exc_info=error)
            self.should_exit = True

    async def _end_all(self) -> None:
        log.info("draining", extra={"fields": {"open": self._agents[0].admission.held}})
        await asyncio.sleep(self._drain)
        for agent in self._agents:
            agent.end_all()


def serve(config: RunConfig, model: str, host: str, port: int) -> None:
    """Serve `model` until SIGTERM or SIGINT.

    Without `retrieval.url` the run's index is served by a process of its own beside it.

    Raises:
        InputError: the model, the index or a setting cannot be used, or the port is taken.
        PolicyError: the engine does not start.
        RetrieverError: the retriever does not open its index in time.
    """
    asyncio.run(_serve(config, model, host, port))


async def _serve(config: RunConfig, model: str, host: str, port: int) -> None:
    serving = config.serving
    learning = LearningLog(serving.learning)
    metrics, tracer = Metrics(), open_tracer(serving.traces)
    admission = Admission(serving.concurrency, serving.queue)
    mortal = config.policy.kind == "vllm"
    names = [(serving.name, "champion", model)]
    if serving.candidate:
        names.append((f"{serving.name}-candidate", "candidate", serving.candidate))
    async with AsyncExitStack() as stack:
        if not config.retrieval.url:
            config = await stack.enter_async_context(sidecar(config))
        settings = await stack.enter_async_context(opened(config, [m for *_, m in names]))
        agents = [
            ServedAgent(name, role, setting, serving, admission, metrics, tracer, mortal=mortal)
            for (name, role, _), setting in zip(names, settings, strict=True)
        ]
        healths = [agent.health for agent in agents]
        metrics.follow(admission, healths, settings[0].retriever)
        for agent in agents:
            metrics.models.labels(agent.role, agent.setting.policy.digest).set(1)
        app = create_app(agents, serving, metrics, learning, os.environ.get(serving.token_env, ""))
        server = Server(uvicorn_config(app, host, port, serving.drain), agents, serving.drain)
        watches = [asyncio.create_task(agent.health.watch(agent.setting)) for agent in agents]
        stack.push_async_callback(_cancelled, watches)
        for watch in watches:
            watch.add_done_callback(server.watch_ended)
        await _run(server)


@asynccontextmanager
async def opened(config: RunConfig, models: Sequence[str]) -> AsyncIterator[list[Setting]]:
    """The retriever, and an engine for each model; closed after use."""
    await _await_retriever(config.retrieval.url)
    retrieval = config.retrieval.model_copy(update={"retries": ENDLESS})
    async with AsyncExitStack() as stack:
        retriever = await asyncio.to_thread(
            open_retriever, config.model_copy(update={"retrieval": retrieval})
        )
        stack.push_async_callback(retriever.close)
        settings = []
        for model in models:
            policy = await open_policy(config, model)
            stack.push_async_callback(policy.close)
            settings.append(Setting(policy, retriever, config.agent))
        yield settings


async def _await_retriever(url: str) -> None:
    """Return once the retriever is ready."""
    started = time.monotonic()
    problem = "no attempt was made"
    async with httpx.AsyncClient(timeout=5) as client:
        while time.monotonic() - started < START:
            try:
                answer = await client.get(f"{url.rstrip('/')}/readyz")
            except httpx.TransportError as error:
                problem = repr(error)
            except httpx.InvalidURL as error:
                raise InputError(f"retrieval.url: {url!r} is no URL: {error}") from error
            else:
                if answer.status_code == 200:
                    return
                problem = f"it answers {answer.status_code}"
            await asyncio.sleep(0.5)
    raise RetrieverError(
        f"the retriever at {url} was not ready within {START:g} s ({problem}): see its log"
    )


def uvicorn_config(app: object, host: str, port: int, drain: float) -> uvicorn.Config:
    """How the application is served; requests under way get `drain` seconds to end."""
    return uvicorn.Config(
        app,  # type: ignore[arg-type]
        host=host,
        port=port,
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=int(drain + LAST),
        timeout_keep_alive=30,
        server_header=False,
    )


async def _run(server: Server) -> None:
    # uvicorn raises the signal again once it has closed; arriving here it means "done".
    for ending in (signal.SIGTERM, signal.SIGINT):
        signal.signal(ending, lambda *_: None)
    config = server.config
    log.info("serving", extra={"fields": {"host": config.host, "port": config.port}})
    try:
        await server.serve()
    except SystemExit as error:  # uvicorn's way to say that it could not listen
        raise ExSearchError(
            f"cannot listen at {config.host}:{config.port}; is the port taken? Choose another "
            "with --port"
        ) from error


async def _cancelled(tasks: Sequence[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
