"""Encoded passages on disk, shard by shard: every passage is encoded exactly once.

    WORK/shards/00007.jsonl         the shard's passages
    WORK/shards/00007.lengths.npy   vectors per passage, int32 [passages]
    WORK/shards/00007.vectors.npy   all vectors, float16 [vectors, dim]
    WORK/shards/00007.json          written last: the shard is whole

Shard s holds passages s·size … (s+1)·size - 1 of the corpus. What a kill can cost is
the shard being encoded. Machines that share WORK, a folder or a URL, may each take every
n-th shard.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from exsearch import storage
from exsearch.errors import InputError
from exsearch.mirror import Mirror
from exsearch.records import Passage
from exsearch.retrieval.encoder import Encoder
from exsearch.retrieval.files import load_array, remove_leftovers, save_array, writing
from exsearch.retrieval.plan import Plan
from exsearch.retrieval.progress import Advance, Display

TEXTS, LENGTHS, VECTORS = ".jsonl", ".lengths.npy", ".vectors.npy"
CODES, RESIDUALS = ".codes.npy", ".residuals.npy"
ENCODED = ".json"
"""Endings of a shard's files; the last says that it is encoded, RESIDUALS that it is compressed."""


@dataclass(frozen=True)
class Shard:
    """Where one shard's files are."""

    work: Path
    number: int

    def name(self, ending: str) -> str:
        """The name in WORK of the file that ends so."""
        return f"shards/{self.number:05d}{ending}"

    @property
    def texts(self) -> Path:
        return self.work / self.name(TEXTS)

    @property
    def lengths(self) -> Path:
        return self.work / self.name(LENGTHS)

    @property
    def vectors(self) -> Path:
        return self.work / self.name(VECTORS)

    @property
    def codes(self) -> Path:
        return self.work / self.name(CODES)

    @property
    def residuals(self) -> Path:
        return self.work / self.name(RESIDUALS)

    def load_lengths(self) -> Any:
        return load_array(self.lengths)

    def finish(self, passages: int, vectors: int) -> None:
        facts = {"passages": passages, "vectors": vectors}
        storage.write_json(self.work / self.name(ENCODED), facts)


def ended(work: Mirror, ending: str) -> set[str]:
    """Names of the files with this ending that all shards have by now."""
    return set(work.names(f"shards/*{ending}"))


def all_shards(work: Mirror, plan: Plan) -> list[Shard]:
    """Every shard of the build, all of them encoded.

    Raises:
        InputError: some are missing; the message names the first few.
    """
    shards = [Shard(work.folder, number) for number in range(plan.shards)]
    encoded = ended(work, ENCODED)
    missing = [shard.number for shard in shards if shard.name(ENCODED) not in encoded]
    if missing:
        raise InputError(
            f"{len(missing)} of {plan.shards} shards in {work.place} are not encoded yet "
            f"(first: {', '.join(map(str, missing[:5]))}). Encode them, then merge."
        )
    return shards


def encode_shards(
    passages: Iterable[Passage],
    work: Mirror,
    plan: Plan,
    encoder: Encoder,
    shard_of: tuple[int, int] = (0, 1),
    display: Display | None = None,
) -> int:
    """Encode the shards s with s mod n = i that are not there yet.

    Args:
        passages: the whole corpus, in the order of the survey.
        work: the build's folder, shared by everybody who takes part. Each shard is sent as
            soon as it is encoded.
        shard_of: (i, n), counted from 0.

    Returns:
        How many shards were encoded now.

    Raises:
        StorageError: the disk is full, or the store is out of reach; finished shards are kept.
    """
    index, count = shard_of
    if not 0 <= index < count:
        raise InputError(f"shard {index} of {count} does not exist: they count from 0")
    encoded = ended(work, ENCODED)
    shards = {number: Shard(work.folder, number) for number in range(index, plan.shards, count)}
    todo = [number for number, shard in shards.items() if shard.name(ENCODED) not in encoded]
    mine = len(shards)
    (work.folder / "shards").mkdir(parents=True, exist_ok=True)
    if count == 1:
        remove_leftovers(work.folder / "shards")
    wanted = set(todo)
    done = plan.shard_size * (mine - len(todo))
    total = max(done, min(plan.passages, plan.shard_size * mine))
    with (display or Display(False)).bar("encoding passages", total, done) as advance:
        for number, block in enumerate(_blocks(passages, plan.shard_size)):
            if number in wanted:
                shard = shards[number]
                _encode(shard, block, encoder, advance)
                work.send(*map(shard.name, (TEXTS, LENGTHS, VECTORS, ENCODED)))
                work.forget(*map(shard.name, (TEXTS, LENGTHS, VECTORS)))
    return len(todo)


def _blocks(passages: Iterable[Passage], size: int) -> Iterator[list[Passage]]:
    stream = iter(passages)
    while block := list(islice(stream, size)):
        yield block


def _encode(shard: Shard, block: list[Passage], encoder: Encoder, advance: Advance) -> None:
    rows = encoder.tokenize_passages([passage_text(p) for p in block])
    lengths = np.array([int(encoder.kept(ids).sum()) for ids in rows], np.int32)
    starts = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
    with writing(shard.texts) as file:
        file.write("".join(f"{p.to_line()}\n" for p in block).encode())
    save_array(shard.lengths, lengths)
    with writing(shard.vectors) as file:
        shape = (int(starts[-1]), encoder.dim)
        np.lib.format.write_array_header_1_0(
            file, {"descr": "<f2", "fortran_order": False, "shape": shape}
        )
        head, width = file.tell(), 2 * encoder.dim

        def store(position: int, vectors: Any) -> None:
            file.seek(head + int(starts[position]) * width)
            file.write(vectors.tobytes())

        for count in encoder.encode_passages(rows, store):
            advance(count)
    shard.finish(len(block), int(starts[-1]))


def passage_text(passage: Passage) -> str:
    """What ColBERT reads of a passage."""
    return f"{passage.title} | {passage.text}"
