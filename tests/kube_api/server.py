"""The stand-in API server: HTTPS, threads, stopped and started again over one store."""

from __future__ import annotations

import socket
import ssl
import sys
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from kube_api import rbac
from kube_api.api import Api
from kube_api.handler import Broken, Handler
from kube_api.request import Recorded, Request
from kube_api.status import ApiError

Fault = Callable[[Recorded], ApiError | None]


class Server:
    """Serves an `Api` on a port of 127.0.0.1.

    Args:
        certificate: PEM file with certificate and key.
        fault: asked before each request is carried out; what it returns is the answer.
    """

    def __init__(self, api: Api, certificate: str, fault: Fault) -> None:
        self.api = api
        self.requests: list[Recorded] = []
        self._fault = fault
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(certificate)
        self._port = 0
        self._stopped = threading.Event()
        self._http: _Http | None = None
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        """`https://127.0.0.1:PORT`; the port stays the same over restarts."""
        return f"https://127.0.0.1:{self._port}"

    def start(self) -> None:
        """Serve; does nothing where it serves already."""
        if self._http is not None:
            return
        self._stopped = threading.Event()
        self._http = _Http(("127.0.0.1", self._port), self._context, self._handler())
        self._port = self._http.server_address[1]
        self._thread = threading.Thread(
            target=self._http.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """Cut every connection and refuse new ones; the store keeps its objects."""
        if self._http is None or self._thread is None:
            return
        self._stopped.set()
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()
        self._http.cut()
        self._http = self._thread = None

    def admit(self, handled: Request) -> None:
        """Record a request, fail it where a test wants it to fail, check its user's rights.

        Raises:
            ApiError: an injected fault, or 403.
        """
        self.requests.append(handled.recorded)
        fault = self._fault(handled.recorded)
        if fault is not None:
            if not fault.code:
                raise Broken
            raise fault
        rbac.check(self.api.store, handled.user, handled.attributes)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        return type("Bound", (Handler,), {"served": self, "stop_sign": self._stopped})


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True
    block_on_close = False
    request_queue_size = 64

    def __init__(
        self, address: tuple[str, int], context: ssl.SSLContext, handler: type[Any]
    ) -> None:
        super().__init__(address, handler)
        self._context = context
        self._open: set[socket.socket] = set()

    def get_request(self) -> tuple[Any, Any]:
        plain, address = self.socket.accept()
        # The handshake is the handler's thread's: a slow client must not hold up the others.
        secure = self._context.wrap_socket(plain, server_side=True, do_handshake_on_connect=False)
        secure.settimeout(600)
        self._open.add(secure)
        return secure, address

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        self.close_request(request)

    def cut(self) -> None:
        """Close every connection that is open."""
        for connection in list(self._open):
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue  # the client was faster

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exc_info()[1], (OSError, ValueError)):
            super().handle_error(request, client_address)
