"""What is to be indexed, and with which settings: decided once, checked on every resume."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Literal

import numpy as np

from exsearch import storage
from exsearch.config import RetrievalConfig
from exsearch.errors import InputError
from exsearch.mirror import Mirror
from exsearch.records import Passage, canonical_json
from exsearch.retrieval.progress import Display

PLAN = "plan.json"


@dataclass(frozen=True)
class Survey:
    """One pass over the corpus: how much there is, and a few passages of it."""

    passages: int
    bytes: int
    """Size of all passages as JSON lines."""
    digest: str
    sample: list[Passage] = field(repr=False, default_factory=list)
    """Drawn evenly from the whole corpus."""


@dataclass(frozen=True)
class Plan:
    """Everything that shapes the index's bytes. A resumed build must have the same."""

    corpus: str
    passages: int
    checkpoint: str
    shard_size: int
    batch_size: int
    doc_maxlen: int
    query_maxlen: int
    dtype: Literal["float32", "bfloat16"]
    dim: int
    nbits: int
    kmeans_iterations: int

    @property
    def shards(self) -> int:
        return -(-self.passages // self.shard_size)

    @property
    def digest(self) -> str:
        return storage.digest_bytes(canonical_json(asdict(self)).encode())


def survey(passages: Iterable[Passage], sample: int = 0, display: Display | None = None) -> Survey:
    """Count the corpus, take its digest, and draw a sample from it.

    Raises:
        InputError: no passages, two with the same id, or an iterator that can be
            read only once (an index needs two passes).
    """
    if iter(passages) is passages:
        raise InputError("the corpus must be readable more than once: pass a list or a file's path")
    rng = np.random.default_rng(0)
    kept: list[Passage] = []
    digest, size, ids = hashlib.sha256(), 0, array("q")
    with (display or Display(False)).bar("reading the corpus", None) as advance:
        for count, passage in enumerate(passages):
            line = f"{passage.to_line()}\n".encode()
            digest.update(line)
            size += len(line)
            ids.append(hash(passage.pid))
            if len(kept) < sample:
                kept.append(passage)
            elif sample and (place := int(rng.integers(count + 1))) < sample:
                kept[place] = passage
            if count % 1000 == 999:
                advance(1000)
    if not ids:
        raise InputError("the corpus holds no passages")
    _refuse_repeats(passages, ids)
    return Survey(len(ids), size, digest.hexdigest()[:16], kept)


def _refuse_repeats(passages: Iterable[Passage], ids: array[int]) -> None:
    """Two passages with one id could not be told apart in any result."""
    hashes, counts = np.unique(np.frombuffer(ids, np.int64), return_counts=True)
    suspects = set(hashes[counts > 1].tolist())
    if not suspects:
        return
    seen: dict[str, int] = {}
    for number, passage in enumerate(passages, 1):
        if hash(passage.pid) in suspects and seen.setdefault(passage.pid, number) != number:
            raise InputError(
                f"passages {seen[passage.pid]} and {number} of the corpus have the same id "
                f"{passage.pid!r}. Give every passage its own."
            )


def make_plan(found: Survey, checkpoint: str, dim: int, config: RetrievalConfig) -> Plan:
    return Plan(
        corpus=found.digest,
        passages=found.passages,
        checkpoint=checkpoint,
        shard_size=config.shard_size,
        batch_size=config.batch_size,
        doc_maxlen=config.doc_maxlen,
        query_maxlen=config.query_maxlen,
        dtype=config.dtype,
        dim=dim,
        nbits=config.nbits,
        kmeans_iterations=config.kmeans_iterations,
    )


def agree(work: Mirror, plan: Plan) -> None:
    """Write the plan of a new build; refuse to go on with one that was planned otherwise.

    Raises:
        InputError: the unfinished build has another corpus, checkpoint or settings.
    """
    path = storage.join(work.place, PLAN)
    if not work.has(PLAN):
        storage.write_json(path, asdict(plan))
        return
    before, now = storage.read_json(path), asdict(plan)
    changed = sorted(key for key in now if before.get(key) != now[key])
    if changed:
        told = ", ".join(f"{key}: {before.get(key)} then, {now[key]} now" for key in changed)
        raise InputError(
            f"the unfinished index in {work.place} was begun differently ({told}). "
            "Go on with the same corpus and settings, or delete that folder to start anew."
        )


def load_plan(work: Mirror) -> Plan:
    """The plan of an unfinished build.

    Raises:
        InputError: nothing has been encoded there.
    """
    if not work.has(PLAN):
        raise InputError(
            f"nothing to merge: {work.place} holds no encoded shards. Encode them first."
        )
    return Plan(**storage.read_json(storage.join(work.place, PLAN)))
