"""Build a PLAID index: survey, encode, find centroids, compress, join.

    build_index("psgs_w100.tsv.gz", "runs/wiki/index", config)

Every passage is encoded once. All work happens in `FOLDER.partial`; a build that
was killed goes on from its last whole shard and ends in the same bytes. On a
cluster, pods that share the folder call `encode_part` with their own (i, n), and one
of them calls `merge`.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from exsearch import storage
from exsearch.config import RetrievalConfig
from exsearch.data.corpus import read_corpus
from exsearch.data.lines import Skipped
from exsearch.errors import InputError
from exsearch.records import Passage
from exsearch.retrieval.assemble import compress_shards, join
from exsearch.retrieval.encoder import Encoder
from exsearch.retrieval.estimates import space, tokens_per_passage
from exsearch.retrieval.info import INFO, IndexInfo
from exsearch.retrieval.plan import Plan, Survey, agree, load_plan, make_plan, survey
from exsearch.retrieval.progress import Display
from exsearch.retrieval.shards import encode_shards


class CorpusFile:
    """The passages of a corpus file, read anew at every pass."""

    def __init__(self, path: str, skip_bad: bool = False) -> None:
        self.path, self.skip_bad = path, skip_bad
        self.skipped = Skipped()
        """What the latest pass left out."""

    def __iter__(self) -> Iterator[Passage]:
        self.skipped = Skipped()
        return read_corpus(self.path, skip_bad=self.skip_bad, report=self.skipped)


def parse_part(text: str) -> tuple[int, int]:
    """`i/n` as (i, n), counted from 0.

    Raises:
        InputError: it is no such pair.
    """
    index, slash, count = text.partition("/")
    if not (slash and index.isdecimal() and count.isdecimal() and int(index) < int(count)):
        raise InputError(f"--shard {text!r} is not of the form I/N with I from 0 to N-1")
    return int(index), int(count)


def work_folder(folder: str | Path) -> Path:
    """Where an index is built before it appears as `folder`."""
    return Path(f"{str(folder).rstrip('/')}.partial").absolute()


def build_index(
    corpus: str | Iterable[Passage],
    folder: str | Path,
    config: RetrievalConfig,
    *,
    encoder: Encoder | None = None,
    display: Display | None = None,
) -> IndexInfo:
    """Build the index of `corpus` in `folder`, or go on where a killed build stopped.

    Args:
        corpus: a corpus file, or passages that can be iterated over more than once.
        folder: a local folder that does not exist yet, or holds this very index.

    Raises:
        InputError: the corpus is empty or broken; `folder` holds another index; the
            unfinished build there has other settings.
        StorageError: too little disk space (said before any work), or a failed write.
    """
    display = display or Display()
    target = Path(folder).absolute()
    encoder = encoder or Encoder(config.checkpoint, config)
    passages, plan = _prepare(corpus, target, config, encoder, display)
    work = work_folder(target)
    if (target / INFO).exists():
        return _finished(target, work)
    encode_shards(passages, work, plan, encoder, display=display)
    return _merge(work, plan, encoder.folder, target, display)


def encode_part(
    corpus: str | Iterable[Passage],
    folder: str | Path,
    config: RetrievalConfig,
    shard_of: tuple[int, int],
    *,
    encoder: Encoder | None = None,
    display: Display | None = None,
) -> int:
    """Encode every n-th shard, from the i-th on; returns how many were encoded now."""
    display = display or Display()
    encoder = encoder or Encoder(config.checkpoint, config)
    passages, plan = _prepare(corpus, Path(folder).absolute(), config, encoder, display)
    return encode_shards(passages, work_folder(folder), plan, encoder, shard_of, display)


def compress_part(
    folder: str | Path, shard_of: tuple[int, int], display: Display | None = None
) -> None:
    """Compress every n-th encoded shard (the first call finds the centroids)."""
    work = work_folder(folder)
    compress_shards(work, load_plan(work), display or Display(), shard_of)


def merge(folder: str | Path, config: RetrievalConfig, display: Display | None = None) -> IndexInfo:
    """Turn encoded shards into the finished index.

    Raises:
        InputError: shards are missing, or there are none.
    """
    target = Path(folder).absolute()
    work = work_folder(target)
    if (target / INFO).exists():
        return _finished(target, work)
    plan = load_plan(work)
    encoder = Encoder(config.checkpoint, config)
    if encoder.digest != plan.checkpoint:
        raise InputError(
            f"the shards in {work} were encoded with checkpoint {plan.checkpoint}, "
            f"but {encoder.folder} is {encoder.digest}"
        )
    return _merge(work, plan, encoder.folder, target, display or Display())


def _prepare(
    corpus: str | Iterable[Passage],
    target: Path,
    config: RetrievalConfig,
    encoder: Encoder,
    display: Display,
) -> tuple[Iterable[Passage], Plan]:
    if storage.is_remote(str(target)):
        raise InputError("an index is built in a local folder; copy it to the object store after")
    passages = CorpusFile(corpus) if isinstance(corpus, str) else corpus
    found = survey(passages, sample=200, display=display)
    plan = make_plan(found, encoder.digest, encoder.dim, config)
    if (target / INFO).exists():
        if IndexInfo.load(target).plan != plan.digest:
            raise InputError(
                f"{target} holds the index of another corpus, checkpoint or settings. "
                "Choose another folder, or delete that one."
            )
        return passages, plan
    if target.exists() and any(target.iterdir()):
        raise InputError(f"{target} exists and is no index. Choose another folder.")
    work = work_folder(target)
    if not (work / "plan.json").exists():
        storage.require_space(work, needed_space(plan, found, encoder), "building the index")
    agree(work, plan)
    return passages, plan


def _finished(target: Path, work: Path) -> IndexInfo:
    """The index that is there; what a kill right after its publication left is removed."""
    shutil.rmtree(work, ignore_errors=True)
    return IndexInfo.load(target)


def needed_space(plan: Plan, found: Survey, encoder: Encoder) -> int:
    """Bytes that the build needs at its peak, from the lengths of a sample."""
    return space(plan, found.bytes, tokens_per_passage(encoder, found.sample)).peak


def _merge(work: Path, plan: Plan, checkpoint: str, target: Path, display: Display) -> IndexInfo:
    compress_shards(work, plan, display)
    if target.exists():
        target.rmdir()
    return join(work, plan, checkpoint, target)
