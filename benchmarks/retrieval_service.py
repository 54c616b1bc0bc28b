"""The retrieval service against colbert-ai's Searcher behind Flask, under 16 clients.

All serve the same passages in processes of their own and are asked the same distinct
queries by `GET /api/search` (k = 20) in a closed loop of 16 clients. Ours runs twice, with
the encoder in float32 and in bfloat16. The Flask server does what ColBERT's own does, one
query per request; it runs as it comes (16 threads search at once) and with a lock (one at
a time), and the faster of the two counts. Rounds take turns; medians over rounds. Each
server's processor time per query is given too: unlike throughput it hardly depends on
what else the machine does.

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
from typing import Any, Literal
from urllib.parse import quote

os.environ.setdefault("HF_HUB_OFFLINE", "1")

from retrieval_data import finish, machine, many_queries, passages, ready, work_folder

from exsearch.config import RetrievalConfig
from exsearch.retrieval import build_index, compat
from exsearch.retrieval.encoder import demo_folder
from exsearch.retrieval.store import PassageStore

CLIENTS = 16
K = 20
OURS: tuple[Literal["float32", "bfloat16"], ...] = ("float32", "bfloat16")


def serve_with_flask(index: Path, port: int, locked: bool) -> None:
    """ColBERT's own way of serving; `locked` lets one query search at a time."""
    from colbert import Searcher
    from flask import Flask, request

    store = PassageStore(index)
    texts = [f"{p.title} | {p.text}" for p in (store[row] for row in range(len(store)))]
    with compat.offline(), compat.quiet():
        compat.ready()
        searcher = Searcher(
            index=index.name, index_root=str(index.parent), collection=texts, verbose=0
        )
    app = Flask(__name__)
    lock = threading.Lock() if locked else contextlib.nullcontext()

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


def prepared_indexes(count: int) -> dict[str, Path]:
    """The same passages indexed in each arithmetic."""
    folders = {}
    for dtype in OURS:
        folders[dtype] = work_folder() / f"index-{count}-{dtype}"
        config = RetrievalConfig(checkpoint=str(demo_folder()), dtype=dtype)
        build_index(passages(count), folders[dtype], config)
    return folders


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--passages", type=int, default=9002)
    parser.add_argument("--requests", type=int, default=320)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--flask", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.flask:
        kind, folder, port = options.flask
        serve_with_flask(Path(folder), int(port), kind == "locked")
        return
    ready()
    indexes = prepared_indexes(options.passages)
    queries = many_queries(options.requests * options.repeats)
    about = machine()
    python, plain = sys.executable, str(indexes["float32"])
    serving = [python, "-m", "exsearch", "retriever", "--index"]
    commands = {
        "float32": [*serving, plain, "--port"],
        "bfloat16": [*serving, str(indexes["bfloat16"]), "--port"],
        "flask": [python, __file__, "--flask", "free", plain],
        "flask, one at a time": [python, __file__, "--flask", "locked", plain],
    }
    with contextlib.ExitStack() as stack:
        servers = {}
        for name, command in commands.items():
            port = free_port()
            servers[name] = stack.enter_context(running([*command, str(port)], port))
        same = agreement([servers["float32"], servers["flask"]], queries[:50])
        rounds: dict[str, list[dict[str, float]]] = {name: [] for name in servers}
        for repeat in range(options.repeats):
            part = queries[repeat * options.requests : (repeat + 1) * options.requests]
            names = list(servers)
            for name in names[repeat % len(names) :] + names[: repeat % len(names)]:
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
    speeds = {name: value["queries_per_second"] for name, value in middle.items()}
    best = max((name for name in middle if name not in OURS), key=speeds.__getitem__)
    return {
        "clients": CLIENTS,
        "k": K,
        "passages": options.passages,
        "requests_per_round": options.requests,
        "median": middle,
        "better_flask": best,
        "throughput_ratio": {name: round(speeds[name] / speeds[best], 2) for name in OURS},
        "throughput_ratios_by_round": {
            name: [
                round(a["queries_per_second"] / b["queries_per_second"], 2)
                for a, b in zip(rounds[name], rounds[best], strict=True)
            ]
            for name in OURS
        },
        "identical_results_float32": same,
        "aim": "throughput ratio >= 5",
        "machine": about,
    }


if __name__ == "__main__":
    main()
