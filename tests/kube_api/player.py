"""Something that plays a part of the cluster in a thread, tick by tick."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from types import TracebackType
from typing import Self

import urllib3
from kubernetes import client

from kube_api.cluster import Cluster
from kube_api.rest import Rest

TICK = 0.1
"""Seconds between two looks at the cluster."""

GONE = (urllib3.exceptions.HTTPError, OSError)
"""What a client raises while the server is away."""


class Player(ABC):
    """Looks at one namespace again and again, as a controller does, while the block runs.

    It lives through restarts of the server and lost races. An error of its own ends it, and is
    raised when the block ends.
    """

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        self.cluster = cluster
        self.namespace = namespace
        self.rest = Rest(cluster.player_client(), namespace)
        self._stop = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name=type(self).__name__, daemon=True)

    def check(self) -> None:
        """Raise the error that has ended it, if one has."""
        if self._error is not None:
            raise self._error

    @abstractmethod
    def tick(self) -> None:
        """Look once, and do what is to be done."""

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()
        if error is None:
            self.check()

    def _run(self) -> None:
        while not self._stop.wait(TICK):
            try:
                self.tick()
            except GONE:
                continue  # the server is away; look again
            except client.ApiException as refused:
                # Somebody else was faster: the next look will see it.
                if refused.status not in (403, 404, 409, 429, 500, 503):
                    self._error = refused
                    return
            except Exception as broken:  # noqa: BLE001 - raised in the test's thread
                self._error = broken
                return
