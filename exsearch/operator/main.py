"""The operator: it watches, queues and reconciles for as long as it leads."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import httpx
from aiohttp import web
from kubernetes.client import Configuration

from exsearch.errors import ExSearchError, InputError
from exsearch.operator.api import OperatorApi
from exsearch.operator.kfp import Pipelines
from exsearch.operator.kinds import GROUP, KIND, VERSION
from exsearch.operator.leader import Leader, Lost, Terms
from exsearch.operator.look import Means, Pace
from exsearch.operator.metrics import Metrics
from exsearch.operator.reconcile import Reconciler
from exsearch.operator.watching import Watching
from exsearch.operator.work import Key, Work

log = logging.getLogger(__name__)

NAMESPACE = "exsearch-system"
"""Where the operator is deployed, and its Lease lies."""
TOGETHER = 0.3
"""Seconds for which an agent that was named waits: one change is often several events."""


@dataclass(frozen=True)
class Options:
    """How an operator runs."""

    namespaces: tuple[str, ...] = ()
    """Namespaces that are watched; empty: all."""
    metrics_port: int = 8081
    """Port of /metrics and /healthz; 0: none is opened."""
    metrics_host: str = "127.0.0.1"
    """Address on which it is opened."""
    lead: bool = True
    """Act only while holding the Lease. Without, one must see to it that there is one operator."""
    lease_namespace: str = NAMESPACE
    terms: Terms = field(default_factory=Terms)
    pace: Pace = field(default_factory=Pace)
    identity: str = field(default_factory=lambda: f"{socket.gethostname()}_{uuid.uuid4().hex[:8]}")


class Operator:
    """One process of the operator.

    Args:
        configuration: address and credentials of the Kubernetes API.
    """

    def __init__(self, configuration: Configuration, options: Options | None = None) -> None:
        self.options = options or Options()
        self.metrics = Metrics()
        self._configuration = configuration

    async def run(self) -> None:
        """Run until cancelled; then the lease is free for the next one.

        Raises:
            InputError: the account may not use the Lease, or a port cannot be opened.
        """
        async with contextlib.AsyncExitStack() as stack:
            api = OperatorApi(self._configuration, counted=self.metrics.counted)
            await stack.enter_async_context(api)
            await stack.enter_async_context(_http(self.metrics, self.options))
            if self.options.lead:
                await self._lead(api)
            else:
                await self._act(api)

    async def _lead(self, api: OperatorApi) -> None:
        """Act while holding the lease; when it is lost, stop, and stand by again."""
        options = self.options
        while True:
            leader = Leader(api, options.lease_namespace, options.identity, options.terms)
            await leader.acquire()
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(leader.keep())
                    group.create_task(self._act(api))
            except* Lost as lost:
                log.warning("no longer the leader: %s", lost.exceptions[0])
            finally:
                # Whatever was under way has ended by now: the next one may begin.
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.shield(leader.release())

    async def _act(self, api: OperatorApi) -> None:
        """Watch and reconcile until cancelled."""
        await _until_served(api)
        async with httpx.AsyncClient() as http, Pipelines() as pipelines:
            reconciler = Reconciler(Means(api, pipelines, http, self.metrics, self.options.pace))
            work = Work(reconciler.reconcile, self.metrics)

            def named(key: Key) -> None:
                work.add(key, TOGETHER)

            async with Watching(self._configuration, self.options.namespaces, named):
                self.metrics.leader.set(1)
                try:
                    await work.run()
                finally:
                    self.metrics.leader.set(0)
                    self.metrics.phases.clear()


async def _until_served(api: OperatorApi) -> None:
    """Wait for the definition of SearchAgent: watches that begin before it see nothing."""
    while True:
        try:
            if KIND in await api.kinds(f"{GROUP}/{VERSION}"):
                return
            log.warning("the cluster knows no SearchAgent yet: apply `exsearch operator crd`")
        except InputError:
            raise
        except ExSearchError as error:
            log.warning("%s", error)
        await asyncio.sleep(5)


@contextlib.asynccontextmanager
async def _http(metrics: Metrics, options: Options) -> AsyncIterator[None]:
    """Serve /metrics and /healthz while the block runs."""
    host, port = options.metrics_host, options.metrics_port
    if not port:
        yield
        return

    async def text(request: web.Request) -> web.Response:
        return web.Response(body=metrics.text(), headers={"Content-Type": "text/plain"})

    async def health(request: web.Request) -> web.Response:
        # That this is answered shows that the loop that reconciles is not stuck.
        return web.Response(text="ok\n")

    app = web.Application()
    app.add_routes([web.get("/metrics", text), web.get("/healthz", health)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
    except OSError as error:
        await runner.cleanup()
        raise InputError(
            f"port {port} of {host} cannot be opened ({error.strerror}): choose another "
            "--metrics-port, or 0 for none"
        ) from error
    try:
        yield
    finally:
        await runner.cleanup()


def run(configuration: Configuration, options: Options) -> None:
    """Run an operator until SIGTERM or SIGINT."""
    asyncio.run(_until_told(Operator(configuration, options)))


async def _until_told(operator: Operator) -> None:
    loop, task = asyncio.get_running_loop(), asyncio.ensure_future(operator.run())
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, task.cancel)
    try:
        await task
    except asyncio.CancelledError:
        log.info("process %d was told to end, and has let go of the lease", os.getpid())
