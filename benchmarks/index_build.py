"""Building an index: ours against colbert-ai's own Indexer, on the same passages.

Both start from text and a checkpoint on disk and end with a PLAID index, with the same
bits, lengths, batch size and k-means rounds. Builds alternate; medians over repeats. Both
indexes are then searched by colbert-ai's Searcher: recall@20 counts the gold titles of the
HotpotQA sample among the titles of the first 20 passages.

    python benchmarks/index_build.py --passages 600 --repeats 3
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

from retrieval_data import Asked, finish, machine, passages, questions, ready

from exsearch.config import RetrievalConfig
from exsearch.records import Passage
from exsearch.retrieval import build_index, compat
from exsearch.retrieval.encoder import demo_folder
from exsearch.retrieval.progress import Display
from exsearch.retrieval.shards import passage_text


def build_ours(corpus: list[Passage], root: Path, checkpoint: str) -> Path:
    config = RetrievalConfig(checkpoint=checkpoint)
    build_index(corpus, root / "ours", config, display=Display(False))
    return root / "ours"


def build_theirs(corpus: list[Passage], root: Path, checkpoint: str) -> Path:
    from colbert import Indexer
    from colbert.infra import ColBERTConfig, Run, RunConfig

    settings = RunConfig(nranks=1, root=str(root), experiment="theirs", avoid_fork_if_possible=True)
    wanted = RetrievalConfig()
    with compat.offline(), compat.quiet(), Run().context(settings):
        config = ColBERTConfig(
            nbits=wanted.nbits,
            doc_maxlen=wanted.doc_maxlen,
            query_maxlen=wanted.query_maxlen,
            index_bsize=wanted.batch_size,
            kmeans_niters=wanted.kmeans_iterations,
        )
        indexer = Indexer(checkpoint, config, verbose=0)
        indexer.index("index", [passage_text(p) for p in corpus], overwrite=True)
        return Path(str(indexer.get_index()))


def recall(index: Path, corpus: list[Passage], asked: list[Asked], k: int = 20) -> float:
    from colbert import Searcher

    with compat.offline(), compat.quiet():
        searcher = Searcher(
            index=index.name,
            index_root=str(index.parent),
            collection=[passage_text(p) for p in corpus],
            verbose=0,
        )
        shares = []
        for question, gold in asked:
            rows, _, _ = searcher.search(question, k=k)
            found = {corpus[row].title for row in rows}
            shares.append(len(gold & found) / len(gold))
    return statistics.mean(shares)


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--passages", type=int, default=600)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    ready()
    corpus, checkpoint = passages(options.passages), str(demo_folder())
    titles = {passage.title for passage in corpus}
    asked = [(question, gold) for question, gold in questions() if gold <= titles]
    about = machine()
    builders = {"ours": build_ours, "colbert": build_theirs}
    seconds: dict[str, list[float]] = {name: [] for name in builders}
    recalls: dict[str, float] = {}
    for repeat in range(options.repeats):
        order = list(builders) if repeat % 2 == 0 else list(builders)[::-1]
        for name in order:
            root = Path(tempfile.mkdtemp(prefix="exsearch-bench-"))
            try:
                start = time.perf_counter()
                index = builders[name](corpus, root, checkpoint)
                seconds[name].append(time.perf_counter() - start)
                if name not in recalls:
                    recalls[name] = recall(index, corpus, asked)
            finally:
                shutil.rmtree(root)
    finish("index_build", _result(seconds, recalls, len(corpus), len(asked), about))


def _result(
    seconds: dict[str, list[float]],
    recalls: dict[str, float],
    count: int,
    asked: int,
    about: dict[str, Any],
) -> dict[str, Any]:
    middle = {name: statistics.median(values) for name, values in seconds.items()}
    return {
        "passages": count,
        "questions": asked,
        "seconds": {k: [round(v, 2) for v in values] for k, values in seconds.items()},
        "median_seconds": {name: round(value, 2) for name, value in middle.items()},
        "time_ratio_ours_to_colbert": round(middle["ours"] / middle["colbert"], 3),
        "paired_ratios": [
            round(a / b, 3) for a, b in zip(seconds["ours"], seconds["colbert"], strict=True)
        ],
        "recall_at_20": {name: round(value, 4) for name, value in recalls.items()},
        "aim": "time ratio <= 0.6, equal recall",
        "machine": about,
    }


if __name__ == "__main__":
    main()
