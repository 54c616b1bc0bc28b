"""A small retriever service over HTTP, as slow or broken as a test wants it."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from exsearch.records import Passage

Search = Callable[[str, int], list[Passage]]


@contextmanager
def serving(
    search: Search, *, delay: float = 0.0, fails_after: int | None = None, port: int = 0
) -> Iterator[str]:
    """Serve `POST /search` and `GET /version` on a port of 127.0.0.1, a free one unless given.

    Args:
        delay: seconds before each answer.
        fails_after: searches answered before every further one is a 500.
    """
    answered = 0

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            self.reply(200, {"index": "tiny"})

        def do_POST(self) -> None:
            nonlocal answered
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            answered += 1
            time.sleep(delay)
            if fails_after is not None and answered > fails_after:
                self.reply(500, {"detail": "broken on purpose"})
                return
            rows = [[p.model_dump() for p in search(q, body["k"])] for q in body["queries"]]
            self.reply(200, rows)

        def reply(self, code: int, value: Any) -> None:
            data = json.dumps(value).encode()
            try:
                self.send_response(code)
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)
            except (BrokenPipeError, ConnectionResetError):
                self.close_connection = True

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
