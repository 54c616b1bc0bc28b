"""A real index over generated passages: built, killed, resumed, merged, searched, served."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch

from exsearch.config import RetrievalConfig, RunConfig
from exsearch.errors import InputError, StorageError
from exsearch.records import Passage
from exsearch.retrieval import (
    Encoder,
    LocalRetriever,
    RetrieverClient,
    Searcher,
    build_index,
    compress_part,
    demo_checkpoint,
    encode_part,
    estimate,
    merge,
    open_retriever,
)
from exsearch.retrieval.codec import kmeans, train
from exsearch.retrieval.index import work_folder
from exsearch.retrieval.progress import Display
from exsearch.retrieval.ranker import residual_table
from exsearch.retrieval.shards import passage_text
from exsearch.retrieval.store import TEXTS

pytestmark = pytest.mark.retrieval

SILENT = Display(shown=False)
KINDS = ("river", "town", "film", "bridge", "composer")
PLACES = ("Averland", "Bromby", "Castell", "Dunmore", "Elsing", "Farrow")


def corpus(count: int = 150) -> list[Passage]:
    """Short passages of differing length, each with a name of its own."""
    rng = random.Random(7)
    rows = []
    for i in range(count):
        kind, place = KINDS[i % len(KINDS)], PLACES[i % len(PLACES)]
        name = "".join(rng.choice(["ka", "lo", "mi", "ru", "te", "zo"]) for _ in range(4)).title()
        text = f"{name} is a {kind} in {place}." + f" It is {kind} number {i}." * rng.randint(0, 4)
        rows.append(Passage(pid=f"p{i}", title=name, text=text))
    return rows


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    return demo_checkpoint(tmp_path_factory.mktemp("colbert") / "checkpoint")


@pytest.fixture(scope="session")
def config(checkpoint: str) -> RetrievalConfig:
    return RetrievalConfig(checkpoint=checkpoint, shard_size=25, batch_size=16)


@pytest.fixture(scope="session")
def encoder(checkpoint: str, config: RetrievalConfig) -> Encoder:
    return Encoder(checkpoint, config)


@pytest.fixture(scope="session")
def index(
    tmp_path_factory: pytest.TempPathFactory, config: RetrievalConfig, encoder: Encoder
) -> Path:
    folder = tmp_path_factory.mktemp("index") / "index"
    build_index(corpus(), folder, config, encoder=encoder, display=SILENT)
    return folder


@pytest.fixture(scope="session")
def searcher(index: Path) -> Searcher:
    return Searcher(index)


def digests(folder: Path) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.iterdir())}


def questions(count: int = 40) -> list[str]:
    return [f"Which {p.text.split()[3]} is called {p.title}?" for p in corpus()[:count]]


# --- the checkpoint and the encoder


def test_the_demo_checkpoint_is_made_once_and_always_alike(checkpoint: str, tmp_path: Path) -> None:
    assert digests(Path(demo_checkpoint(tmp_path / "again"))) == digests(Path(checkpoint))
    weights = Path(checkpoint) / "model.safetensors"
    before = weights.stat().st_mtime_ns
    demo_checkpoint(checkpoint)
    assert weights.stat().st_mtime_ns == before


def test_the_projection_keeps_angles(encoder: Encoder) -> None:
    weight = encoder._model.linear.weight
    assert weight.shape == (128, 384)
    assert torch.allclose(weight @ weight.T, torch.eye(128), atol=1e-5)


def test_the_encoder_agrees_with_colberts_own(checkpoint: str, encoder: Encoder) -> None:
    from colbert.infra import ColBERTConfig
    from colbert.modeling.checkpoint import Checkpoint

    from exsearch.retrieval import compat

    texts = [passage_text(p) for p in corpus(12)]
    with compat.offline(), compat.quiet():
        theirs = Checkpoint(checkpoint, ColBERTConfig(checkpoint=checkpoint, doc_maxlen=180))
        vectors, lengths = theirs.docFromText(texts, bsize=4, keep_dims="flatten")[:2]
        queries = theirs.queryFromText(questions(5))
    rows = encoder.tokenize_passages(texts)
    ours: dict[int, Any] = {}
    for _ in encoder.encode_passages(rows, ours.__setitem__):
        pass
    assert [len(ours[i]) for i in range(12)] == lengths
    assert np.abs(np.concatenate([ours[i] for i in range(12)]) - vectors.numpy()).max() < 2e-3
    assert np.abs(encoder.encode_queries(questions(5)) - queries.numpy()).max() < 1e-4


def test_a_folder_that_is_no_checkpoint(tmp_path: Path, config: RetrievalConfig) -> None:
    with pytest.raises(InputError, match="holds no checkpoint"):
        Encoder(str(tmp_path), config)
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    with pytest.raises(InputError, match="not a ColBERT checkpoint"):
        Encoder(str(tmp_path), config)
    with pytest.raises(InputError, match="no ColBERT checkpoint at"):
        Encoder(str(tmp_path / "missing"), config)


# --- the codec


def test_kmeans_finds_clusters_and_leaves_no_centroid_unused() -> None:
    rng = np.random.default_rng(0)
    centres = np.linalg.qr(rng.standard_normal((16, 16)))[0][:5]
    points = np.repeat(centres, 40, axis=0) + 0.05 * rng.standard_normal((200, 16))
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    rng.shuffle(points)
    found = kmeans(points.astype(np.float16), 5, 8).numpy()
    assert (found @ centres.T).max(0).min() > 0.98
    doubled = np.repeat(points[:1], 50, axis=0).astype(np.float16)
    assert np.isfinite(kmeans(np.concatenate([doubled, points[1:10]]), 8, 4).numpy()).all()


@pytest.mark.parametrize("nbits", [1, 2, 4])
def test_what_is_compressed_comes_back_as_colbert_reads_it(nbits: int, tmp_path: Path) -> None:
    from colbert.indexing.codecs.residual import ResidualCodec
    from colbert.infra import ColBERTConfig

    rng = np.random.default_rng(1)
    vectors = rng.standard_normal((3000, 128))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16)
    codec = train(vectors, 32, 3, nbits)
    codes, residuals = codec.compress(vectors[:500])
    theirs = ResidualCodec(
        ColBERTConfig(dim=128, nbits=nbits), codec.centroids, codec.residual, codec.cutoffs,
        codec.weights,
    )  # fmt: skip
    packed = ResidualCodec.Embeddings(torch.from_numpy(codes), torch.from_numpy(residuals))
    back = theirs.decompress(packed).numpy()
    likeness = (back * vectors[:500].astype(np.float32)).sum(1)
    assert likeness.mean() > {1: 0.75, 2: 0.9, 4: 0.99}[nbits]
    table = residual_table(codec.weights.numpy(), nbits)
    ours = codec.centroids.numpy()[codes] + table[residuals].reshape(500, 128)
    ours /= np.linalg.norm(ours, axis=1, keepdims=True)
    assert np.abs(ours - back).max() < 1e-5


# --- building


def test_a_finished_index_is_not_built_again(
    index: Path, config: RetrievalConfig, encoder: Encoder
) -> None:
    before = digests(index)
    info = build_index(corpus(), index, config, encoder=encoder, display=SILENT)
    assert digests(index) == before
    assert info.passages == 150
    assert info.bytes == sum(p.stat().st_size for p in index.iterdir()) - (
        (index / "exsearch.json").stat().st_size
    )
    with pytest.raises(InputError, match="another corpus"):
        build_index(corpus(10), index, config, encoder=encoder, display=SILENT)


BUILD = """
import sys
from test_retrieval_index import corpus, SILENT
from exsearch.config import RetrievalConfig
from exsearch.retrieval import build_index
print("started", flush=True)
build_index(corpus(), sys.argv[2], RetrievalConfig.model_validate_json(sys.argv[1]), display=SILENT)
"""


@pytest.mark.timeout(300)
def test_a_killed_build_ends_in_the_same_bytes(
    index: Path, config: RetrievalConfig, tmp_path: Path
) -> None:
    target = tmp_path / "index"
    work = work_folder(target)
    rng = random.Random(time.time_ns())
    kills = 0
    # Killed at a moment after each of these appears, wherever that finds it.
    for sign in ("shards/00000.json", "shards/00003.json", "codec/buckets.pt"):
        process = subprocess.Popen(
            [sys.executable, "-c", BUILD, config.model_dump_json(), str(target)],
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parent), "HF_HUB_OFFLINE": "1"},
        )
        while process.poll() is None and not (work / sign).exists():
            time.sleep(0.005)
        time.sleep(rng.uniform(0, 0.3))
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            kills += 1
        process.wait()
        assert kills == 0 or not (target / "0.codes.pt").exists() or (target / TEXTS).exists()
    assert kills >= 1
    finished = {p.name: p.stat().st_mtime_ns for p in (work / "shards").glob("*.lengths.npy")}
    build_index(corpus(), target, config, display=SILENT)
    assert finished
    assert digests(target) == digests(index)
    assert not work.exists()


def test_pods_share_the_work(
    index: Path, config: RetrievalConfig, encoder: Encoder, tmp_path: Path
) -> None:
    target = tmp_path / "index"
    with pytest.raises(InputError, match="nothing to merge"):
        merge(target, config, SILENT)
    assert encode_part(corpus(), target, config, (1, 2), encoder=encoder, display=SILENT) == 3
    with pytest.raises(InputError, match=r"3 of 6 shards .* \(first: 0, 2, 4\)"):
        merge(target, config, SILENT)
    with pytest.raises(InputError, match="begun differently"):
        encode_part(corpus(149), target, config, (0, 2), encoder=encoder, display=SILENT)
    assert encode_part(corpus(), target, config, (0, 2), encoder=encoder, display=SILENT) == 3
    assert encode_part(corpus(), target, config, (0, 2), encoder=encoder, display=SILENT) == 0
    compress_part(target, (1, 2), SILENT)
    merge(target, config, SILENT)
    assert digests(target) == digests(index)


def test_a_full_disk_is_said_before_any_work(
    config: RetrievalConfig, encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil

    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(StorageError, match="building the index needs about"):
        build_index(corpus(), tmp_path / "index", config, encoder=encoder, display=SILENT)
    assert list(tmp_path.iterdir()) == []


def test_an_estimate_comes_close(
    index: Path, searcher: Searcher, config: RetrievalConfig, encoder: Encoder
) -> None:
    found = estimate(corpus(), config, sample=40, encoder=encoder, display=SILENT)
    assert found.vectors == pytest.approx(searcher.info.vectors, rel=0.15)
    fixed = sum((index / n).stat().st_size for n in ("centroids.pt", "metadata.json"))
    assert found.index_bytes == pytest.approx(searcher.info.bytes - fixed, rel=0.35)
    assert found.total_seconds > 0
    large = estimate(
        corpus(), config, passages=21_000_000, sample=8, encoder=encoder, display=SILENT
    )
    assert large.shards == 840_000
    assert large.centroids == 2**18
    assert large.encode_seconds > 1000 * found.encode_seconds


# --- searching


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


def test_a_damaged_index_is_told(index: Path, checkpoint: str, tmp_path: Path) -> None:
    import shutil

    broken = Path(shutil.copytree(index, tmp_path / "broken"))
    codes = broken / "0.codes.pt"
    codes.write_bytes(codes.read_bytes()[:1000])
    with pytest.raises(StorageError, match="damaged"):
        Searcher(broken)
    with pytest.raises(StorageError, match="is no index"):
        Searcher(tmp_path)
    other = Path(shutil.copytree(checkpoint, tmp_path / "other"))
    settings = json.loads((other / "config.json").read_text(encoding="utf-8"))
    (other / "config.json").write_text(json.dumps({**settings, "x": 1}), encoding="utf-8")
    moved = Path(shutil.copytree(index, tmp_path / "moved"))
    info = json.loads((moved / "exsearch.json").read_text(encoding="utf-8"))
    info["checkpoint_path"] = str(tmp_path / "gone")
    (moved / "exsearch.json").write_text(json.dumps(info), encoding="utf-8")
    assert Searcher(moved, checkpoint).digest == Searcher(index).digest
    with pytest.raises(InputError, match="was made with checkpoint"):
        Searcher(moved, str(other))


# --- serving


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@pytest.mark.timeout(180)
async def test_the_service_answers_alike_and_finishes_what_it_began(
    index: Path, searcher: Searcher, tmp_path: Path
) -> None:
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "exsearch", "retriever", "--index", str(index), "--port", str(port)],
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )
    try:
        settings = RetrievalConfig(url=f"http://127.0.0.1:{port}", timeout=60)
        client = RetrieverClient(settings)
        assert client.digest == searcher.digest
        assert await client.search(questions(), 6) == searcher.search(questions(), 6)
        results: list[httpx.Response] = []

        def one(query: str) -> None:
            body = {"queries": [query] * 40, "k": 50}
            results.append(httpx.post(f"{client.url}/search", json=body, timeout=60))

        threads = [threading.Thread(target=one, args=(q,)) for q in questions(6)]
        for thread in threads:
            thread.start()
        deadline = time.monotonic() + 20
        while httpx.get(f"{client.url}/metrics").text.count("batch_queries") == 0:
            assert time.monotonic() < deadline
        time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        for thread in threads:
            thread.join()
        assert [r.status_code for r in results] == [200] * 6
        assert process.wait(30) == 0
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{client.url}/healthz")
        await client.close()
    finally:
        process.kill()
        process.wait()


async def test_open_retriever_opens_the_runs_index(index: Path, config: RetrievalConfig) -> None:
    run = RunConfig(run=str(index.parent), retrieval=config)
    retriever = open_retriever(run)
    assert isinstance(retriever, LocalRetriever)
    (row,) = await retriever.search([questions(1)[0]], 2)
    assert row[0].pid == "p0"
    await retriever.close()
    with pytest.raises(StorageError, match="is no index"):
        open_retriever(RunConfig(run=str(index), retrieval=config))


def test_the_command_line(
    index: Path, config: RetrievalConfig, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from typer.testing import CliRunner

    from exsearch.cli.app import app

    file = tmp_path / "corpus.jsonl"
    file.write_text("".join(f"{p.to_line()}\n" for p in corpus(30)), encoding="utf-8")
    target = str(tmp_path / "index")
    common = [
        "--corpus",
        str(file),
        "--index",
        target,
        "-s",
        f"retrieval.checkpoint={config.checkpoint}",
    ]
    run = CliRunner().invoke
    dry = run(app, ["index", *common, "--dry-run", "--sample", "8", "--json"])
    assert json.loads(dry.stdout)["passages"] == 30
    assert not Path(target).exists()
    shown = run(app, ["index", *common, "--dry-run", "--sample", "8", "--passages", "21000000"])
    assert "21,000,000 passages" in shown.output + shown.stderr
    part = run(app, ["index", *common, "--shard", "0/1", "--json"])
    assert json.loads(part.stdout) == {"encoded": 1}
    merged = run(app, ["index", *common, "--merge", "--json"])
    assert json.loads(merged.stdout)["passages"] == 30
    built = run(app, ["index", *common, "--json"])
    assert json.loads(built.stdout) == json.loads(merged.stdout)
    found = run(app, ["search", questions(1)[0], "-k", "2", "--index", target, "--json"])
    assert [p["pid"] for p in json.loads(found.stdout)["passages"]][0] == "p0"
    table = run(app, ["search", questions(1)[0], "--index", target])
    assert corpus(1)[0].title in table.stdout
    assert "no corpus" in str(run(app, ["index"]).exception)
