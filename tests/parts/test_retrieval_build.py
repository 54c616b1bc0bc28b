"""A real index: built, killed, resumed, shared between machines, estimated."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from retrieval_parts import SILENT, corpus, digests

from exsearch.config import RetrievalConfig
from exsearch.errors import InputError, StorageError
from exsearch.retrieval import (
    Encoder,
    Searcher,
    build_index,
    compress_part,
    encode_part,
    estimate,
    merge,
)
from exsearch.retrieval.index import work_folder
from exsearch.retrieval.info import INFO

pytestmark = pytest.mark.retrieval


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
from retrieval_parts import corpus, SILENT
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
        assert not target.exists() or (target / INFO).exists(), "published half"
    assert kills >= 1
    build_index(corpus(), target, config, display=SILENT)
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
    assert found.index_bytes == pytest.approx(searcher.info.bytes, rel=0.2)
    assert found.total_seconds > 0
    large = estimate(
        corpus(), config, passages=21_000_000, sample=8, encoder=encoder, display=SILENT
    )
    assert large.shards == 840_000
    assert large.centroids == 2**18
    assert large.encode_seconds > 1000 * found.encode_seconds
