"""The retrieval service against colbert-ai's Searcher behind Flask, under 16 clients.

Both serve the same index in processes of their own and are asked the same distinct
queries by `GET /api/search` (k = 20) in a closed loop of 16 clients. The Flask server does
what ColBERT's own does, one query per request; a lock keeps its threads from tripping over
one another in the tokenizer, which makes it faster, not slower. Rounds alternate between
the servers; medians over rounds. Each server's processor time per query is given too: unlike
throughput it hardly depends on what else the machine does.

    python benchmarks/retrieval_service.py --passages 9002 --requests 320 --repeats 3
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import quote

os.environ.setdefault("HF_HUB_OFFLINE", "1")

from retrieval_data import finish, machine, many_queries, passages, ready, work_folder

from exsearch.config import RetrievalConfig
from exsearch.retrieval import build_index, compat
from exsearch.retrieval.encoder import demo_folder
from exsearch.retrieval.store import PassageStore

CLIENTS = 16
K = 20


def serve_with_flask(index: Path, port: int) -> None:
    """ColBERT's own way of serving."""
    from colbert import Searcher
    from flask import Flask, request

    store = PassageStore(index)
    texts = [f"{p.title} | {p.text}" for p in (store[row] for row in range(len(store)))]
    with compat.offline(), compat.quiet():
        compat.ready()
        searcher = Searcher(
            index=index.name, index_root=str(index.parent), collection=texts, verbose=0
        )
    app, lock = Flask(__name__), threading.Lock()

    @app.get("/api/search")
    def search() -> Any:
        query, k = request.args["query"], int(request.args["k"])
        with lock:
            rows, ranks, scores = searcher.search(query, k=k)
        found = [
            {"pid": row, "rank": rank, "score": score, "text": texts[row]}
            for row, rank, score in zip(rows, ranks, scores, strict=False)
        ]
        return app.json.response({"query": query, "topk": found})

    app.run("127.0.0.1", port, threaded=True)


@dataclass(frozen=True)
class Server:
    """A server under test."""

    pid: int
    port: int

    def cpu_seconds(self) -> float:
        """Processor time it has used so far, all threads (Linux)."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def ask(connection: HTTPConnection, query: str) -> list[dict[str, Any]]:
    connection.request("GET", f"/api/search?query={quote(query)}&k={K}")
    answer = connection.getresponse()
    body = answer.read()
    if answer.status != 200:
        raise RuntimeError(f"{answer.status}: {body[:200]!r}")
    rows: list[dict[str, Any]] = json.loads(body)["topk"]
    return rows


@contextlib.contextmanager
def running(command: list[str], port: int) -> Iterator[Server]:
    """A server process, once it answers."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 300
        while True:
            try:
                ask(HTTPConnection("127.0.0.1", port, timeout=60), "warm up")
                break
            except OSError:
                if process.poll() is not None or time.monotonic() > deadline:
                    sys.exit(f"the server did not start: {' '.join(command)}")
                time.sleep(0.2)
        yield Server(process.pid, port)
    finally:
        process.terminate()
        process.wait()


def round_of(server: Server, queries: list[str]) -> dict[str, float]:
    """All queries, by CLIENTS threads that each wait for their answer."""
    waiting, latencies = iter(queries), []
    lock = threading.Lock()

    def client() -> None:
        connection = HTTPConnection("127.0.0.1", server.port, timeout=120)
        while True:
            with lock:
                query = next(waiting, None)
            if query is None:
                return
            start = time.perf_counter()
            ask(connection, query)
            latencies.append(time.perf_counter() - start)

    threads = [threading.Thread(target=client) for _ in range(CLIENTS)]
    used, start = server.cpu_seconds(), time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - start
    assert len(latencies) == len(queries), "a client failed"
    cuts = statistics.quantiles(latencies, n=100)
    return {
        "queries_per_second": len(queries) / seconds,
        "p50_ms": 1000 * cuts[49],
        "p95_ms": 1000 * cuts[94],
        "cpu_ms_per_query": 1000 * (server.cpu_seconds() - used) / len(queries),
    }


def prepared_index(count: int) -> Path:
    folder = work_folder() / f"index-{count}"
    build_index(passages(count), folder, RetrievalConfig(checkpoint=str(demo_folder())))
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--passages", type=int, default=9002)
    parser.add_argument("--requests", type=int, default=320)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--flask", nargs=2, metavar=("INDEX", "PORT"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.flask:
        serve_with_flask(Path(options.flask[0]), int(options.flask[1]))
        return
    ready()
    index = prepared_index(options.passages)
    queries = many_queries(options.requests * options.repeats)
    about = machine()
    ours, theirs = free_port(), free_port()
    python = sys.executable
    commands = {
        "ours": [python, *f"-m exsearch retriever --index {index} --port {ours}".split()],
        "flask": [python, __file__, "--flask", str(index), str(theirs)],
    }
    rounds: dict[str, list[dict[str, float]]] = {"ours": [], "flask": []}
    with running(commands["ours"], ours) as a, running(commands["flask"], theirs) as b:
        servers = {"ours": a, "flask": b}
        same = agreement([a, b], queries[:50])
        for repeat in range(options.repeats):
            part = queries[repeat * options.requests : (repeat + 1) * options.requests]
            for name in ("ours", "flask") if repeat % 2 == 0 else ("flask", "ours"):
                rounds[name].append(round_of(servers[name], part))
    finish("retrieval_service", _result(rounds, same, options, about))


def agreement(servers: list[Server], queries: list[str]) -> float:
    """Share of queries to which all servers give the same texts in the same order."""
    connections = [HTTPConnection("127.0.0.1", s.port, timeout=120) for s in servers]
    same = 0
    for query in queries:
        texts = [[row["text"] for row in ask(c, query)] for c in connections]
        same += all(found == texts[0] for found in texts)
    return same / len(queries)


def _result(
    rounds: dict[str, list[dict[str, float]]],
    same: float,
    options: argparse.Namespace,
    about: dict[str, Any],
) -> dict[str, Any]:
    middle = {
        name: {key: round(statistics.median(r[key] for r in each), 2) for key in each[0]}
        for name, each in rounds.items()
    }
    ours, flask = middle["ours"]["queries_per_second"], middle["flask"]["queries_per_second"]
    return {
        "clients": CLIENTS,
        "k": K,
        "passages": options.passages,
        "requests_per_round": options.requests,
        "median": middle,
        "throughput_ratio": round(ours / flask, 2),
        "paired_ratios": [
            round(a["queries_per_second"] / b["queries_per_second"], 2)
            for a, b in zip(rounds["ours"], rounds["flask"], strict=True)
        ],
        "identical_results": same,
        "aim": "throughput ratio >= 5",
        "machine": about,
    }


if __name__ == "__main__":
    main()
