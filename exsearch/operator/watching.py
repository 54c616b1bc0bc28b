"""Which agents are to be looked at: kopf watches, and says no more than a name.

Kopf's handlers of changes keep what they have seen in annotations of the resource, and act on
the difference: that writes where nothing is to be written, and makes what happens depend on
what was noticed. Here kopf handles raw events only, which needs no annotation and no finalizer;
each names an agent, and the reconcile reads what there is. Kopf takes its loop for its own
(it cancels every task in the end), so it has a thread and a loop to itself.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Sequence
from typing import Any

import kopf
from kubernetes.client import Configuration

from exsearch.operator.kinds import AGENT, AGENTS, OWNED
from exsearch.operator.work import Key

log = logging.getLogger(__name__)

_AGAIN = 5.0
"""Seconds before the watches are begun anew after they broke down."""


class Watching:
    """Names each agent that changed, or of which an object changed. Use with `async with`.

    Args:
        namespaces: those watched; empty: all.
        named: called in the loop that entered the block.
    """

    def __init__(
        self, configuration: Configuration, namespaces: Sequence[str], named: Callable[[Key], None]
    ) -> None:
        self._configuration = configuration
        self._namespaces = list(namespaces)
        self._named = named
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="kopf", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None

    async def __aenter__(self) -> Watching:
        self._loop = asyncio.get_running_loop()
        self._thread.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._stop.set()
        await asyncio.to_thread(self._thread.join, 10.0)

    def _tell(self, namespace: str, name: str) -> None:
        assert self._loop is not None
        if not self._stop.is_set() and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._named, (namespace, name))

    def _run(self) -> None:
        """Watch; begin anew when the watches break down, as with a server that is away."""
        while not self._stop.is_set():
            try:
                asyncio.run(self._watch())
            except Exception as error:  # noqa: BLE001 - whatever kopf raises, watching goes on
                log.warning("the watches broke down: %s", error or type(error).__name__)
            self._stop.wait(_AGAIN)

    async def _watch(self) -> None:
        where: dict[str, Any] = (
            {"namespaces": self._namespaces} if self._namespaces else {"clusterwide": True}
        )
        await kopf.operator(
            registry=self._registry(),
            settings=_settings(),
            standalone=True,
            stop_flag=self._stop,
            **where,
        )

    def _registry(self) -> kopf.OperatorRegistry:
        registry = kopf.OperatorRegistry()

        @kopf.on.login(registry=registry)
        def login(**_: Any) -> kopf.ConnectionInfo:
            return _connection(self._configuration)

        @kopf.on.event(AGENTS.group, AGENTS.version, AGENTS.plural, registry=registry)
        def agent(namespace: str | None, name: str | None, **_: Any) -> None:
            self._tell(namespace or "", name or "")

        def part(namespace: str | None, labels: kopf.Labels, **_: Any) -> None:
            self._tell(namespace or "", labels[AGENT])

        watched = {"labels": {AGENT: kopf.PRESENT}, "registry": registry}
        for kind in OWNED.values():
            if kind.group:
                kopf.on.event(kind.group, kind.version, kind.plural, **watched)(part)
            else:
                kopf.on.event(kind.version, kind.plural, **watched)(part)
        return registry


def _settings() -> kopf.OperatorSettings:
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    # It would list and watch namespaces and CRDs; without them it serves what it was told to.
    settings.scanning.disabled = True
    settings.process.ultimate_exiting_timeout = None
    settings.watching.server_timeout = 300
    settings.watching.client_timeout = 330
    settings.networking.error_backoffs = (1, 1, 2, 3, 5)
    for kind in OWNED.values():
        # Others' objects are not even sent.
        settings.watching.label_selectors[kind.group, kind.plural] = AGENT
    return settings


def _connection(configuration: Configuration) -> kopf.ConnectionInfo:
    """The official client's credentials, for kopf; a pod's token is read anew each time."""
    header = configuration.get_api_key_with_prefix("authorization") or ""
    scheme, _, token = header.partition(" ")
    return kopf.ConnectionInfo(
        server=configuration.host,
        ca_path=configuration.ssl_ca_cert,
        insecure=not configuration.verify_ssl,
        scheme=scheme if token else None,
        token=token or None,
        username=configuration.username or None,
        password=configuration.password or None,
        certificate_path=configuration.cert_file,
        private_key_path=configuration.key_file,
    )
