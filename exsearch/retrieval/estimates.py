"""What an index will take, from a measured sample: time, disk, memory.

The costs that grow with the corpus are measured on this machine (passages encoded
per second, speed of the dot products that k-means and compression consist of, mean
vectors per passage) and scaled by the formulas of the build itself.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from exsearch.config import RetrievalConfig
from exsearch.errors import InputError
from exsearch.records import Passage
from exsearch.retrieval.codec import (
    HELD_OUT,
    POINTS_PER_CENTROID,
    SCORES_AT_ONCE,
    device,
    partitions_for,
)
from exsearch.retrieval.encoder import Encoder
from exsearch.retrieval.plan import Plan, make_plan, survey
from exsearch.retrieval.progress import Display
from exsearch.retrieval.shards import passage_text

LIST_SHARE = 0.7
"""Entries in the centroids' lists per vector: a passage enters each cell once."""


@dataclass(frozen=True)
class Space:
    """Bytes on disk."""

    index: int
    """The finished index, passages included."""
    peak: int
    """The most that is there at once, while it is built."""


@dataclass(frozen=True)
class Estimate:
    """Measured on a sample, projected to `passages`."""

    sample: int
    sample_passages_per_second: float
    vectors_per_passage: float
    passages: int
    vectors: int
    centroids: int
    shards: int
    encode_seconds: float
    kmeans_seconds: float
    compress_seconds: float
    total_seconds: float
    index_bytes: int
    index_bytes_per_passage: float
    peak_disk_bytes: int
    build_memory_bytes: int
    """Beyond the program itself (about 1 GB)."""
    search_memory_bytes: int
    """Held while searching; codes, residuals and texts are memory-mapped beside it."""
    device: str

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def tokens_per_passage(encoder: Encoder, sample: list[Passage]) -> float:
    """Mean number of vectors of a passage; tokenises only."""
    rows = encoder.tokenize_passages([passage_text(p) for p in sample])
    return float(np.mean([encoder.kept(ids).sum() for ids in rows]))


def space(plan: Plan, text_bytes: int, per_passage: float) -> Space:
    """Disk that a build takes: half-precision vectors first, then codes and residuals."""
    vectors = per_passage * plan.passages
    packed = vectors * (4 + plan.dim * plan.nbits / 8)
    lists = vectors * LIST_SHARE * 4
    centroids = partitions_for(round(vectors)) * plan.dim * 2
    # Per passage: 8 bytes of offset, and its length as JSON text.
    index = packed + lists + centroids + text_bytes + 12 * plan.passages
    # Compressed shards, and the joined copy with its raw twin, replace the vectors.
    joining = 2 * packed + index + text_bytes
    encoding = vectors * 2 * plan.dim + text_bytes
    return Space(int(index), int(1.05 * max(encoding + packed / plan.shards, joining)))


def estimate(
    corpus: Iterable[Passage],
    config: RetrievalConfig,
    *,
    passages: int | None = None,
    sample: int = 128,
    encoder: Encoder | None = None,
    display: Display | None = None,
) -> Estimate:
    """Encode a sample and project to the whole corpus, or to `passages` like its own.

    Raises:
        InputError: the corpus is empty, or `passages` is below 1.
    """
    if passages is not None and passages < 1:
        raise InputError(f"cannot estimate an index of {passages} passages")
    display = display or Display()
    encoder = encoder or Encoder(config.checkpoint, config)
    found = survey(corpus, sample=sample, display=display)
    plan = make_plan(found, encoder.digest, encoder.dim, config)
    text_bytes = found.bytes
    if passages is not None:
        text_bytes = round(found.bytes / found.passages * passages)
        plan = Plan(**{**asdict(plan), "passages": passages})
    speed, per_passage = _encoding_speed(encoder, found.sample, display)
    return _project(plan, text_bytes, speed, per_passage, len(found.sample))


def _encoding_speed(
    encoder: Encoder, sample: list[Passage], display: Display
) -> tuple[float, float]:
    """(passages per second, vectors per passage) over the sample, after a warm-up batch."""
    rows = encoder.tokenize_passages([passage_text(p) for p in sample])
    for _ in encoder.encode_passages(rows[:4], lambda _position, _vectors: None):
        pass
    start = time.perf_counter()
    rows = encoder.tokenize_passages([passage_text(p) for p in sample])
    with display.bar("encoding a sample", len(rows)) as advance:
        for count in encoder.encode_passages(rows, lambda _position, _vectors: None):
            advance(count)
    seconds = time.perf_counter() - start
    return len(sample) / seconds, float(np.mean([encoder.kept(ids).sum() for ids in rows]))


def _project(
    plan: Plan, text_bytes: int, speed: float, per_passage: float, sample: int
) -> Estimate:
    vectors = round(plan.passages * per_passage)
    centroids = partitions_for(vectors)
    points = min(vectors, POINTS_PER_CENTROID * centroids)
    products = _dot_products_per_second(plan.dim, centroids)
    encode = plan.passages / speed
    kmeans = plan.kmeans_iterations * points * centroids / products
    compress = vectors * centroids / products
    disk = space(plan, text_bytes, per_passage)
    build = (
        points * plan.dim * 2 * 2
        + 3 * centroids * plan.dim * 4
        + 2 * 4 * SCORES_AT_ONCE
        + HELD_OUT * plan.dim * 8
    )
    lists = int(vectors * LIST_SHARE * 4)
    search = lists + centroids * plan.dim * 4 + 16 * plan.passages
    return Estimate(
        sample=sample,
        sample_passages_per_second=speed,
        vectors_per_passage=per_passage,
        passages=plan.passages,
        vectors=vectors,
        centroids=centroids,
        shards=plan.shards,
        encode_seconds=encode,
        kmeans_seconds=kmeans,
        compress_seconds=compress,
        total_seconds=encode + kmeans + compress,
        index_bytes=disk.index,
        index_bytes_per_passage=disk.index / plan.passages,
        peak_disk_bytes=disk.peak,
        build_memory_bytes=max(build, 2 * lists),
        search_memory_bytes=search,
        device=str(device()),
    )


def _dot_products_per_second(dim: int, centroids: int) -> float:
    """Speed of vectors @ centroids with the largest found per row, as the build does it."""
    place = device()
    width = min(centroids, 1 << 15)
    near = torch.randn(width, dim, device=place)
    rows = torch.randn(max(256, min(4096, (1 << 24) // width)), dim, device=place)
    (rows @ near.T).argmax(1).cpu()
    start, count = time.perf_counter(), 0
    while time.perf_counter() - start < 1.0:
        (rows @ near.T).argmax(1).cpu()
        count += 1
    return count * len(rows) * width / (time.perf_counter() - start)
