"""The predictor under load: `exsearch serve`, its retriever beside it, clients on the same machine.

At each concurrency so many clients ask one question after the other, streamed; every level has
questions of its own, so that none finds another's prefixes cached. Then a burst asks more at once
than there are places. Processor time of the clients is part of what is measured.

    python benchmarks/serving.py                       # a tiny model, made here
    python benchmarks/serving.py --run runs/demo       # SmolLM2, after `make demo`

Reported per level: answers per second, p50 and p95 of the seconds to the first step and to the
answer, statuses, and the agent's overhead (the share of an answer's time that was neither
waiting, nor the engine's, nor the retriever's, as the server tells it). `speedup` is the
throughput at 16 clients over that at one, in the same run.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import httpx
from retrieval_data import finish, machine

from exsearch.data.world import build_world
from exsearch.serving.sidecar import free_port

LEVELS = {1: 16, 4: 32, 16: 64, 64: 128}
"""Concurrency: questions."""
BURST = 150
"""Questions at once; the server has `concurrency + queue` = 80 places."""
START = 600.0
"""Seconds until the server must be ready."""


@dataclass(frozen=True)
class Told:
    """One request, as its client saw it. Times in seconds; None: never."""

    status: str
    first: float | None
    answer: float | None
    overhead: float | None


@contextmanager
def server(run: Path) -> Iterator[str]:
    """`exsearch serve --run RUN` on a free port; gives its address."""
    port = free_port()
    command = [str(Path(sys.executable).with_name("exsearch")), "serve", "--run", str(run)]
    # A file: nobody reads a pipe while the clients ask, and a full one would stop the server.
    with tempfile.TemporaryFile() as said:
        yield from _started([*command, "--port", str(port)], f"http://127.0.0.1:{port}", said)


def _started(command: list[str], url: str, said: IO[bytes]) -> Iterator[str]:
    process = subprocess.Popen(command, stderr=said)
    try:
        end = time.monotonic() + START
        while not _ready(url):
            if process.poll() is not None or time.monotonic() > end:
                said.seek(0)
                raise SystemExit(f"the server did not start:\n{said.read().decode()}")
            time.sleep(0.5)
        yield url
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(90)


def _ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/v2/health/ready", timeout=5).status_code == 200
    except httpx.TransportError:
        return False


async def ask(client: httpx.AsyncClient, question: str) -> Told:
    body = {
        "model": "exsearch",
        "messages": [{"role": "user", "content": question}],
        "stream": True,
    }
    began = time.perf_counter()
    first = None
    async with client.stream("POST", "/openai/v1/chat/completions", json=body) as response:
        if response.status_code != 200:
            await response.aread()
            return Told(str(response.status_code), None, None, None)
        async for line in response.aiter_lines():
            if not line.startswith("data: {"):
                continue
            told = json.loads(line[6:])
            extra = told.get("exsearch", {})
            if first is None and "event" in extra:
                first = time.perf_counter() - began
            if "error" in told:
                return Told(told["error"]["code"], first, None, None)
            if "summary" in extra:
                taken = time.perf_counter() - began
                return Told("200", first, taken, _overhead(extra["summary"]["seconds"]))
    return Told("cut", first, None, None)


def _overhead(seconds: dict[str, float]) -> float:
    worked = seconds["total"] - seconds["waiting"]
    return 1 - (seconds["engine"] + seconds["retriever"]) / worked


async def level(url: str, questions: Sequence[str], clients: int) -> dict[str, Any]:
    """So many clients, each asking the next question as soon as it has an answer."""
    left = list(reversed(questions))
    told: list[Told] = []
    limits = httpx.Limits(max_connections=clients, max_keepalive_connections=clients)

    async def asking(client: httpx.AsyncClient) -> None:
        while left:
            told.append(await ask(client, left.pop()))

    async with httpx.AsyncClient(base_url=url, timeout=600, limits=limits) as client:
        began = time.perf_counter()
        await asyncio.gather(*(asking(client) for _ in range(clients)))
        seconds = time.perf_counter() - began
    return {"clients": clients, "questions": len(questions), **summary(told, seconds)}


def summary(told: Sequence[Told], seconds: float) -> dict[str, Any]:
    return {
        "seconds": round(seconds, 2),
        "per_second": round(len(told) / seconds, 3),
        "statuses": dict(Counter(one.status for one in told)),
        "lost": sum(one.status == "cut" for one in told),
        "first_step_s": quantiles([one.first for one in told if one.first is not None]),
        "answer_s": quantiles([one.answer for one in told if one.answer is not None]),
        "overhead": quantiles([one.overhead for one in told if one.overhead is not None]),
    }


def quantiles(values: Sequence[float]) -> dict[str, float]:
    if len(values) < 2:
        return {}
    cuts = statistics.quantiles(values, n=20, method="inclusive")
    return {"p50": round(cuts[9], 4), "p95": round(cuts[18], 4)}


async def measure(url: str, questions: Sequence[str]) -> dict[str, Any]:
    """All levels, then the burst."""
    spare = iter(questions)
    await level(url, [next(spare) for _ in range(4)], 4)  # warm-up, not counted
    levels = []
    for clients, count in LEVELS.items():
        levels.append(await level(url, [next(spare) for _ in range(count)], clients))
        print(json.dumps(levels[-1]), file=sys.stderr, flush=True)
    burst = await level(url, [next(spare) for _ in range(BURST)], BURST)
    rate = {one["clients"]: one["per_second"] for one in levels}
    return {"levels": levels, "burst": burst, "speedup": round(rate[16] / rate[1], 2)}


def tiny_run(folder: Path) -> tuple[Path, list[str]]:
    """A run of a tiny Llama that follows the protocol, over the tests' small world."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    tiny = importlib.import_module("tiny_model")

    from exsearch import config as settings
    from exsearch.config import RetrievalConfig
    from exsearch.retrieval import Encoder, build_index
    from exsearch.retrieval.encoder import demo_folder

    world = build_world(3, warmup=8, train=8, dev=4, test=8)
    _, tuned = tiny.make_models(folder / "models", world)
    retrieval = RetrievalConfig(checkpoint=str(demo_folder()), doc_maxlen=64)
    encoder = Encoder(retrieval.checkpoint, retrieval)
    build_index(list(world.passages), folder / "run/index", retrieval, encoder=encoder)
    tree = {
        "model": {"path": tuned, "dtype": "float32", "max_tokens": 1024},
        "retrieval": {"checkpoint": retrieval.checkpoint, "doc_maxlen": 64},
        "agent": tiny.AGENT,
        "policy": {"enforce_eager": True, "cpu_kv_gib": 1},
    }
    run = settings.RunConfig.model_validate(tree)
    (folder / "run/run.yaml").write_text(settings.dump(run))
    known = [q.question for q in (*world.questions["warmup"], *world.questions["train"])]
    return folder / "run", known


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--run", type=Path, help="a run folder; default: a tiny model's, made here")
    options = parser.parse_args()
    needed = 4 + sum(LEVELS.values()) + BURST
    with tempfile.TemporaryDirectory() as folder:
        if options.run is None:
            run, known = tiny_run(Path(folder))
            # The tiny model knows few questions; a number before each keeps prefixes apart.
            questions = [f"{n} {known[n % len(known)]}" for n in range(needed)]
        else:
            run = options.run
            lines = (run / "questions.jsonl").read_text().splitlines()
            asked = [json.loads(line)["question"] for line in lines]
            questions = [asked[n % len(asked)] for n in range(needed)]
        with server(run) as url:
            result = asyncio.run(measure(url, questions))
    name = "serving" if options.run else "serving_tiny"
    finish(name, {**result, "machine": machine()})


if __name__ == "__main__":
    main()
