"""From encoded shards to a PLAID index that colbert-ai's searcher can read.

Three stages, each of which starts where a killed one stopped: centroids from a
sample of the stored vectors, compression shard by shard (machines may share this,
too), and the joining of everything into one folder that appears by rename, or at a URL
with the file that makes it an index last.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from exsearch import mirror, storage
from exsearch.mirror import Mirror
from exsearch.retrieval.codec import POINTS_PER_CENTROID, Codec, partitions_for, train
from exsearch.retrieval.files import load_array, remove_leftovers, save_array, writing
from exsearch.retrieval.info import INFO, IndexInfo
from exsearch.retrieval.plan import Plan
from exsearch.retrieval.progress import Display
from exsearch.retrieval.shards import (
    CODES,
    LENGTHS,
    RESIDUALS,
    TEXTS,
    VECTORS,
    Shard,
    all_shards,
    ended,
)
from exsearch.retrieval.store import write_store

_CODEC = ("centroids.pt", "avg_residual.pt", "buckets.pt")
"""Files of the codec, in the order in which it saves them."""


def train_codec(work: Mirror, plan: Plan, display: Display) -> Codec:
    """Centroids and buckets, from a sample drawn evenly from all shards."""
    folder = work.folder / "codec"
    work.fetch("codec")
    if (folder / "buckets.pt").exists():
        return Codec.load(folder, plan.nbits)
    shards = all_shards(work, plan)
    work.fetch(f"shards/*{LENGTHS}")
    lengths = [int(shard.load_lengths().sum()) for shard in shards]
    partitions = partitions_for(sum(lengths))
    share = min(1.0, POINTS_PER_CENTROID * partitions / sum(lengths))
    rng = np.random.default_rng(0)
    parts = []
    for shard, length in zip(shards, lengths, strict=True):
        rows = np.sort(rng.choice(length, max(1, round(share * length)), replace=False))
        with work.borrowed(shard.name(VECTORS)) as vectors:
            parts.append(np.asarray(load_array(vectors)[rows]))
    sample = np.concatenate(parts)
    rng.shuffle(sample)
    with display.bar("finding centroids", plan.kmeans_iterations) as advance:
        codec = train(
            sample,
            min(partitions, len(sample)),
            plan.kmeans_iterations,
            plan.nbits,
            lambda: advance(1),
        )
    codec.save(folder)
    work.send(*(f"codec/{name}" for name in _CODEC))
    return codec


def compress_shards(
    work: Mirror, plan: Plan, display: Display, shard_of: tuple[int, int] = (0, 1)
) -> None:
    """Compress this machine's shards; their half-precision vectors are deleted then."""
    codec = train_codec(work, plan, display)
    shards = all_shards(work, plan)[shard_of[0] :: shard_of[1]]
    compressed = ended(work, RESIDUALS)
    finished = sum(shard.name(RESIDUALS) in compressed for shard in shards)
    with display.bar("compressing shards", len(shards), finished) as advance:
        for shard in shards:
            if shard.name(RESIDUALS) not in compressed:
                with work.borrowed(shard.name(VECTORS)) as vectors:
                    codes, residuals = codec.compress(load_array(vectors))  # type: ignore[arg-type]
                save_array(shard.codes, codes)
                save_array(shard.residuals, residuals)
                work.send(shard.name(CODES), shard.name(RESIDUALS))
                advance(1)
            work.remove(shard.name(VECTORS))


def join(work: Mirror, plan: Plan, checkpoint: str, target: str) -> IndexInfo:
    """Assemble the index from compressed shards and publish it under its own name.

    Args:
        target: path or URL of the finished index.
    """
    work.fetch("codec", *(f"shards/*{ending}" for ending in (TEXTS, LENGTHS, CODES, RESIDUALS)))
    out = work.folder / "index"
    out.mkdir(parents=True, exist_ok=True)
    remove_leftovers(out)
    shards = all_shards(work, plan)
    lengths = np.concatenate([shard.load_lengths() for shard in shards])
    vectors = int(lengths.sum())
    for name in _CODEC:
        shutil.copyfile(work.folder / "codec" / name, out / name)
    centroids = len(torch.load(out / "centroids.pt", weights_only=True, mmap=True))
    _save_joined(out / "0.codes.pt", [s.codes for s in shards], (vectors,), np.int32)
    width = plan.dim * plan.nbits // 8
    _save_joined(out / "0.residuals.pt", [s.residuals for s in shards], (vectors, width), np.uint8)
    _save_lists(out / "ivf.pid.pt", shards, centroids)
    write_store(out, (shard.texts for shard in shards))
    _write_settings(out, plan, checkpoint, lengths, centroids)
    info = _describe(out, plan, checkpoint, vectors, centroids)
    info.save(out)
    if work.remote:
        mirror.publish(out, target, last=INFO)
    else:
        with storage.explained(target, "publish the index as"):
            os.replace(out, target)
            storage.sync_folder(Path(target).parent)
    work.remove()
    return info


def _save_joined(path: Path, parts: list[Path], shape: tuple[int, ...], kind: type) -> None:
    """One tensor file from many arrays, without ever holding it in memory."""
    raw = path.with_suffix(".raw")
    with storage.explained(raw, "write"):
        joined = np.memmap(raw, dtype=kind, mode="w+", shape=shape)
        start = 0
        for part in parts:
            piece = load_array(part)
            joined[start : start + len(piece)] = piece
            start += len(piece)
        with writing(path) as file:
            torch.save(torch.from_numpy(joined), file)
        del joined
        raw.unlink()


def _pairs(shards: Iterable[Shard]) -> Iterator[npt.NDArray[np.int64]]:
    """Per shard, its distinct (centroid, passage) pairs in that order, [pairs, 2]."""
    first = 0
    for shard in shards:
        lengths = np.asarray(shard.load_lengths())
        passages = np.repeat(np.arange(first, first + len(lengths)), lengths)
        keys = np.unique(np.asarray(load_array(shard.codes), np.int64) << 32 | passages)
        yield np.stack([keys >> 32, keys & 0xFFFFFFFF], axis=1)
        first += len(lengths)


def _save_lists(path: Path, shards: list[Shard], centroids: int) -> None:
    """For every centroid the passages with a vector in its cell, ascending (the IVF).

    Two passes over the codes: the first counts, the second puts each shard's pairs
    into place, so that memory holds the lists once and no sort ever sees them all.
    """
    counts = np.zeros(centroids, np.int64)
    for pairs in _pairs(shards):
        counts += np.bincount(pairs[:, 0], minlength=centroids)
    lists = np.zeros(int(counts.sum()), np.int32)
    places = np.concatenate([[0], np.cumsum(counts)[:-1]])
    for pairs in _pairs(shards):
        here = np.bincount(pairs[:, 0], minlength=centroids)
        begins = np.concatenate([[0], np.cumsum(here)[:-1]])
        within = np.arange(len(pairs)) - begins[pairs[:, 0]]
        lists[places[pairs[:, 0]] + within] = pairs[:, 1]
        places = places + here
    with writing(path) as file:
        torch.save((torch.from_numpy(lists), torch.from_numpy(counts)), file)


def _write_settings(
    out: Path, plan: Plan, checkpoint: str, lengths: npt.NDArray[Any], centroids: int
) -> None:
    """The JSON files that colbert-ai's searcher looks for."""
    vectors = int(lengths.sum())
    settings = {
        "checkpoint": checkpoint,
        "dim": plan.dim,
        "nbits": plan.nbits,
        "doc_maxlen": plan.doc_maxlen,
        "query_maxlen": plan.query_maxlen,
        "kmeans_niters": plan.kmeans_iterations,
        "index_bsize": plan.batch_size,
    }
    storage.write_json(
        out / "0.metadata.json",
        {
            "passage_offset": 0,
            "num_passages": len(lengths),
            "num_embeddings": vectors,
            "embedding_offset": 0,
        },
    )
    storage.write_json(out / "doclens.0.json", lengths.tolist())
    storage.write_json(
        out / "metadata.json",
        {
            "config": settings,
            "num_chunks": 1,
            "num_partitions": centroids,
            "num_embeddings": vectors,
            "avg_doclen": vectors / len(lengths),
        },
    )


def _describe(out: Path, plan: Plan, checkpoint: str, vectors: int, centroids: int) -> IndexInfo:
    files = sorted(path for path in out.iterdir() if path.name != INFO)
    # The path of the checkpoint is written into metadata.json but is no part of what
    # the index is: a moved checkpoint must not look like another index.
    content = [p for p in files if p.name != "metadata.json"]
    digests = [f"{path.name}:{storage.digest_file(path)}".encode() for path in content]
    return IndexInfo(
        digest=storage.digest_bytes(plan.digest.encode(), *digests),
        corpus=plan.corpus,
        checkpoint=plan.checkpoint,
        checkpoint_path=checkpoint,
        passages=plan.passages,
        vectors=vectors,
        centroids=centroids,
        bytes=sum(path.stat().st_size for path in files),
        plan=plan.digest,
        nbits=plan.nbits,
        doc_maxlen=plan.doc_maxlen,
        query_maxlen=plan.query_maxlen,
        dtype=plan.dtype,
    )
