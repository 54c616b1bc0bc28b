"""How index time, disk, memory and query latency grow with the corpus.

Each size is built in a process of its own (so that its peak memory is its own), then
opened in another that asks single queries, one after the other, and then batches of 32.
Sizes up to 9,002 are real passages; `--synthetic N` adds N invented ones made of the
sample's sentences in new company (slow: the passages are really encoded).

    python benchmarks/retrieval_growth.py --sizes 1000 9002
    python benchmarks/retrieval_growth.py --sizes 1000 9002 --synthetic 100000
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

from retrieval_data import finish, machine, many_queries, passages, work_folder

from exsearch.config import RetrievalConfig
from exsearch.records import Passage
from exsearch.retrieval import Encoder, Searcher, build_index
from exsearch.retrieval.encoder import demo_folder
from exsearch.retrieval.index import work_folder as index_work_folder

REAL = 9002


def corpus(count: int) -> list[Passage]:
    """Real passages, then invented ones of the same lengths."""
    real = passages(min(count, REAL))
    if count <= REAL:
        return real
    rng = random.Random(3)
    sentences = [s for p in real for s in p.text.split(". ") if s]
    titles = [p.title for p in real]
    invented = []
    for i in range(count - REAL):
        model = rng.choice(real)
        parts = rng.choices(sentences, k=model.text.count(". ") + 1)
        title = f"{rng.choice(titles)} {i}"
        invented.append(Passage(pid=f"synthetic-{i}", title=title, text=". ".join(parts)))
    return real + invented


def peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def build(count: int, folder: Path) -> dict[str, Any]:
    rows = corpus(count)
    config = RetrievalConfig(checkpoint=str(demo_folder()))
    encoder = Encoder(config.checkpoint, config)
    before, start = peak_bytes(), time.perf_counter()
    info = build_index(rows, folder, config, encoder=encoder)
    return {
        "build_seconds": time.perf_counter() - start,
        "build_peak_bytes": peak_bytes(),
        "build_peak_bytes_over_start": peak_bytes() - before,
        "index_bytes": info.bytes,
        "vectors": info.vectors,
        "centroids": info.centroids,
    }


def query(folder: Path) -> dict[str, Any]:
    start = time.perf_counter()
    searcher = Searcher(folder)
    opened = time.perf_counter() - start
    queries = many_queries(132)
    searcher.search(queries[100:], 20)
    singles = []
    for text in queries[:100]:
        start = time.perf_counter()
        searcher.search([text], 20)
        singles.append(1000 * (time.perf_counter() - start))
    start = time.perf_counter()
    for _ in range(3):
        searcher.search(queries[:32], 20)
    batched = 1000 * (time.perf_counter() - start) / 96
    cuts = statistics.quantiles(singles, n=100)
    return {
        "open_seconds": opened,
        "query_p50_ms": cuts[49],
        "query_p95_ms": cuts[94],
        "query_in_batches_of_32_ms": batched,
        "search_peak_bytes": peak_bytes(),
    }


def apart(step: str, count: int, folder: Path) -> dict[str, Any]:
    """Run one step in a fresh process."""
    done = subprocess.run(
        [sys.executable, __file__, "--step", step, str(count), str(folder)],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    measured: dict[str, Any] = json.loads(done.stdout)
    return measured


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[1000, REAL])
    parser.add_argument("--synthetic", type=int, default=0, help="one more size, mostly invented")
    parser.add_argument("--step", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step:
        step, count, folder = options.step
        measured = build(int(count), Path(folder)) if step == "build" else query(Path(folder))
        print(json.dumps(measured))
        return
    demo_folder()
    about, rows = machine(), []
    for count in [*options.sizes, *([options.synthetic] if options.synthetic else [])]:
        folder = work_folder() / f"index-{count}-float32"
        for old in (folder, index_work_folder(folder)):  # a stopped build would be gone on with
            shutil.rmtree(old, ignore_errors=True)
        row = {"passages": count, **apart("build", count, folder), **apart("query", count, folder)}
        row["passages_per_second"] = count / row["build_seconds"]
        row["index_bytes_per_passage"] = row["index_bytes"] / count
        rows.append({k: round(v, 2) if isinstance(v, float) else v for k, v in row.items()})
    finish("retrieval_growth", {"sizes": rows, "machine": about})


if __name__ == "__main__":
    main()
