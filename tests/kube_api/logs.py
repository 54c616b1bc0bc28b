"""Container logs, and the kubelet's endpoint that serves them to the API server."""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

Key = tuple[str, str, str]


class Log:
    """Lines of one container's run, each with the time it was written."""

    def __init__(self) -> None:
        self._lines: list[tuple[datetime, str]] = []
        self._ended = False
        self._changed = threading.Condition()

    def write(self, line: str) -> None:
        """Add a line."""
        with self._changed:
            self._lines.append((datetime.now(UTC), line.rstrip("\n")))
            self._changed.notify_all()

    def end(self) -> None:
        """No line comes after this."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def read(
        self, *, since: datetime | None, tail: int | None, follow: bool, timestamps: bool
    ) -> Iterator[str]:
        """Lines, with their ends; those to come too where it follows.

        Args:
            since: leave out what was written before.
            tail: of what is there, the last lines only.
        """
        with self._changed:
            place = len(self._lines) if tail is None else max(0, len(self._lines) - tail)
        place = 0 if tail is None else place
        while True:
            with self._changed:
                if follow and place == len(self._lines) and not self._ended:
                    self._changed.wait(0.5)
                fresh, ended = self._lines[place:], self._ended
            place += len(fresh)
            for stamp, line in fresh:
                if since is None or stamp >= since:
                    yield f"{_nano(stamp)} {line}\n" if timestamps else f"{line}\n"
            if not fresh and (ended or not follow):
                return


class LogServer:
    """Serves logs over HTTPS as a kubelet does: `/containerLogs/NAMESPACE/POD/CONTAINER`.

    Args:
        certificate: PEM file with certificate and key.
    """

    def __init__(self, certificate: Path) -> None:
        self._logs: dict[Key, Log] = {}
        self._earlier: dict[Key, Log] = {}
        self._waiting: dict[Key, str] = {}
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._http.daemon_threads = True
        self._http.block_on_close = False
        self._http.socket = context.wrap_socket(self._http.socket, server_side=True)
        self._thread = threading.Thread(
            target=self._http.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True
        )
        self._thread.start()

    @property
    def port(self) -> int:
        """Where it listens on 127.0.0.1."""
        return self._http.server_address[1]

    def waiting(self, key: Key, reason: str) -> None:
        """A container has not started, for this reason; asking for its log says so."""
        self._waiting[key] = reason

    def begin(self, key: Key, *, restart: bool = False) -> Log:
        """A container starts: its log from now on.

        Args:
            restart: in the same pod; the log so far is its previous one.
        """
        self._waiting.pop(key, None)
        old = self._logs.pop(key, None)
        self._earlier.pop(key, None)
        if restart and old is not None:
            self._earlier[key] = old
        self._logs[key] = Log()
        return self._logs[key]

    def find(self, key: Key, *, previous: bool = False) -> Log | str:
        """The log of a container, or why there is none."""
        if key in self._waiting:
            reason = self._waiting[key]
            return f'container "{key[2]}" in pod "{key[1]}" is waiting to start: {reason}'
        found = (self._earlier if previous else self._logs).get(key)
        return found or f'container "{key[2]}" in pod "{key[1]}" is not available'

    def close(self) -> None:
        """Stop serving."""
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()


def _handler(server: LogServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:
            pass

        def do_GET(self) -> None:
            url = urlsplit(self.path)
            query = {name: values[-1] for name, values in parse_qs(url.query).items()}
            parts = [unquote(part) for part in url.path.split("/") if part]
            found: Log | str = f"no such path: {url.path}"
            if parts[:1] == ["containerLogs"] and len(parts) == 4:
                key = parts[1], parts[2], parts[3]
                found = server.find(key, previous=query.get("previous") == "true")
            if isinstance(found, str):
                self._refuse(found)
                return
            lines = found.read(
                since=_since(query),
                tail=int(query["tailLines"]) if "tailLines" in query else None,
                follow=query.get("follow") == "true",
                timestamps=query.get("timestamps") == "true",
            )
            self._stream(lines)

        def _refuse(self, why: str) -> None:
            data = why.encode()
            self.send_response(400)
            self.send_header("content-type", "text/plain")
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def _stream(self, lines: Iterator[str]) -> None:
            self.send_response(200)
            self.send_header("content-type", "text/plain")
            self.send_header("transfer-encoding", "chunked")
            self.end_headers()
            try:
                for line in lines:
                    data = line.encode()
                    self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
                    self.wfile.flush()
                self.wfile.write(b"0\r\n\r\n")
            except OSError:
                self.close_connection = True  # the reader went away

    return Handler


def _since(query: dict[str, str]) -> datetime | None:
    if "sinceSeconds" in query:
        then = time.time() - int(query["sinceSeconds"])
        return datetime.fromtimestamp(then, UTC)
    if "sinceTime" in query:
        return datetime.fromisoformat(query["sinceTime"].replace("Z", "+00:00"))
    return None


def _nano(stamp: datetime) -> str:
    return stamp.strftime("%Y-%m-%dT%H:%M:%S.%f000Z")
