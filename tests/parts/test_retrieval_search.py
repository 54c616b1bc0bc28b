"""Searching a real index: right, like colbert-ai, alone or in company."""

from __future__ import annotations

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from retrieval_parts import SILENT, corpus, questions

from exsearch.config import RetrievalConfig
from exsearch.errors import InputError, StorageError
from exsearch.records import Passage
from exsearch.retrieval import Encoder, Searcher, build_index
from exsearch.retrieval.shards import passage_text

pytestmark = pytest.mark.retrieval


def test_a_name_finds_its_passage(searcher: Searcher) -> None:
    rows = searcher.search(questions(), 5)
    hits = sum(row[0].title == p.title for row, p in zip(rows, corpus(), strict=False))
    assert hits >= 36
    scores = [p.score for p in rows[0]]
    assert scores == sorted(scores, reverse=True)


def test_colberts_own_searcher_reads_it_and_ranks_alike(index: Path, searcher: Searcher) -> None:
    import colbert

    from exsearch.retrieval import compat

    with compat.offline(), compat.quiet():
        theirs = colbert.Searcher(
            index=index.name,
            index_root=str(index.parent),
            collection=[passage_text(p) for p in corpus()],
            verbose=0,
        )
    for k in (5, 20, 120):
        theirs.configure(ncells=None, centroid_score_threshold=None, ndocs=None)
        ours = searcher.search(questions(), k)
        for question, row in zip(questions(), ours, strict=True):
            rows, _, scores = theirs.search(question, k=k)
            assert [f"p{i}" for i in rows] == [p.pid for p in row]
            assert scores == pytest.approx([p.score for p in row], abs=1e-3)


def test_results_do_not_depend_on_company(searcher: Searcher) -> None:
    together = searcher.search(questions(), 7)
    for size in (1, 3, 16):
        apart = [
            row
            for start in range(0, 40, size)
            for row in searcher.search(questions()[start : start + size], 7)
        ]
        assert apart == together, f"batches of {size}"


def test_threads_may_search_at_once(searcher: Searcher) -> None:
    expected = searcher.search(questions(), 3)
    with ThreadPoolExecutor(6) as pool:
        rows = list(pool.map(lambda q: searcher.search([q], 3)[0], questions()))
    assert rows == expected


@pytest.mark.parametrize("count", [1, 2, 5])
def test_a_handful_of_passages(
    count: int, config: RetrievalConfig, encoder: Encoder, tmp_path: Path
) -> None:
    few = corpus(count)
    build_index(few, tmp_path / "index", config, encoder=encoder, display=SILENT)
    opened = Searcher(tmp_path / "index")
    for k in (1, 20, 500):
        (row,) = opened.search([questions(1)[0]], k)
        assert len(row) <= min(k, count)
        assert row[0].pid == "p0"
    assert {p.pid for p in opened.search(["anything"], 500)[0]} <= {p.pid for p in few}


HOSTILE = ["", " ", "\0", "[MASK] [SEP] [PAD]", "\u202e\u2066", "?" * 300, "x " * 100_000, "😀"]


def test_hostile_text_is_only_text(
    config: RetrievalConfig, encoder: Encoder, tmp_path: Path
) -> None:
    passages = [Passage(pid=f"h{i}", title=t[:20], text=t) for i, t in enumerate(HOSTILE)]
    build_index([*corpus(5), *passages], tmp_path / "i", config, encoder=encoder, display=SILENT)
    opened = Searcher(tmp_path / "i")
    for query in HOSTILE:
        assert len(opened.search([query], 3)[0]) > 0
    with pytest.raises(InputError, match="k must be"):
        opened.search(["a"], 0)
    assert opened.search([], 3) == []


def test_a_damaged_index_is_told(index: Path, config: RetrievalConfig, tmp_path: Path) -> None:
    broken = Path(shutil.copytree(index, tmp_path / "broken"))
    codes = broken / "0.codes.pt"
    codes.write_bytes(codes.read_bytes()[:1000])
    with pytest.raises(StorageError, match="damaged"):
        Searcher(broken)
    with pytest.raises(StorageError, match="is no index"):
        Searcher(tmp_path)
    other = Path(shutil.copytree(config.checkpoint, tmp_path / "other"))
    settings = json.loads((other / "config.json").read_text(encoding="utf-8"))
    (other / "config.json").write_text(json.dumps({**settings, "x": 1}), encoding="utf-8")
    moved = Path(shutil.copytree(index, tmp_path / "moved"))
    info = json.loads((moved / "exsearch.json").read_text(encoding="utf-8"))
    info["checkpoint_path"] = str(tmp_path / "gone")
    (moved / "exsearch.json").write_text(json.dumps(info), encoding="utf-8")
    assert Searcher(moved, config.checkpoint).digest == Searcher(index).digest
    with pytest.raises(InputError, match="was made with checkpoint"):
        Searcher(moved, str(other))
