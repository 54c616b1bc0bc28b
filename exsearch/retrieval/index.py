"""Build a PLAID index: survey, encode, find centroids, compress, join.

    build_index("psgs_w100.tsv.gz", "runs/wiki/index", config)

Every passage is encoded once. All work happens in `FOLDER.partial`; a build that
was killed goes on from its last whole shard and ends in the same bytes. On a
cluster, pods that share the folder call `encode_part` with their own (i, n), and one
of them calls `merge`. FOLDER may be a URL: then `FOLDER.partial` is one too, and each pod
works in its scratch space (`exsearch.mirror`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from exsearch import mirror, storage
from exsearch.config import RetrievalConfig
from exsearch.data.corpus import read_corpus
from exsearch.data.lines import Skipped
from exsearch.errors import InputError
from exsearch.mirror import Mirror
from exsearch.records import Passage
from exsearch.retrieval.assemble import compress_shards, join
from exsearch.retrieval.encoder import Encoder
from exsearch.retrieval.estimates import space, tokens_per_passage
from exsearch.retrieval.info import INFO, IndexInfo
from exsearch.retrieval.plan import PLAN, Plan, Survey, agree, load_plan, make_plan, survey
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
    """Where an index is built before it appears as the local folder `folder`."""
    return _work(folder).folder


def _work(folder: str | Path, part: str = "") -> Mirror:
    """The build's folder, beside the index; `part` names a pod that works on it with others."""
    return Mirror(f"{str(folder).rstrip('/')}.partial", part)


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
        folder: path or URL that does not exist yet, or holds this very index.

    Raises:
        InputError: the corpus is empty or broken; `folder` holds another index; the
            unfinished build there has other settings.
        StorageError: too little disk space (said before any work), a failed write, or a
            store out of reach.
    """
    display, target = display or Display(), _target(folder)
    encoder = encoder or _encoder(config)
    with _work(target).opened() as work:
        passages, plan = _prepare(corpus, target, work, config, encoder, display)
        if _is_index(target):
            return _finished(target, work)
        encode_shards(passages, work, plan, encoder, display=display)
        return _merge(work, plan, _checkpoint(config, encoder), target, display)


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
    display, target = display or Display(), _target(folder)
    encoder = encoder or _encoder(config)
    with _work(target, "{}-of-{}".format(*shard_of)).opened() as work:
        passages, plan = _prepare(corpus, target, work, config, encoder, display)
        return encode_shards(passages, work, plan, encoder, shard_of, display)


def compress_part(
    folder: str | Path, shard_of: tuple[int, int], display: Display | None = None
) -> None:
    """Compress every n-th encoded shard (the first call finds the centroids)."""
    with _work(_target(folder), "{}-of-{}".format(*shard_of)).opened() as work:
        compress_shards(work, load_plan(work), display or Display(), shard_of)


def merge(folder: str | Path, config: RetrievalConfig, display: Display | None = None) -> IndexInfo:
    """Turn encoded shards into the finished index.

    Raises:
        InputError: shards are missing, or there are none.
    """
    target = _target(folder)
    with _work(target).opened() as work:
        if _is_index(target):
            return _finished(target, work)
        plan = load_plan(work)
        encoder = _encoder(config)
        if encoder.digest != plan.checkpoint:
            raise InputError(
                f"the shards in {work.place} were encoded with checkpoint {plan.checkpoint}, "
                f"but {encoder.folder} is {encoder.digest}"
            )
        return _merge(work, plan, _checkpoint(config, encoder), target, display or Display())


def _target(folder: str | Path) -> str:
    """The finished index's URL or absolute path."""
    return str(folder) if storage.is_remote(folder) else str(Path(folder).absolute())


def _is_index(target: str) -> bool:
    return storage.exists(storage.join(target, INFO))


def _encoder(config: RetrievalConfig) -> Encoder:
    return Encoder(mirror.local(config.checkpoint), config)


def _checkpoint(config: RetrievalConfig, encoder: Encoder) -> str:
    """The checkpoint's place as the index remembers it: no copy in scratch space."""
    return config.checkpoint if storage.is_remote(config.checkpoint) else encoder.folder


def _prepare(
    corpus: str | Iterable[Passage],
    target: str,
    work: Mirror,
    config: RetrievalConfig,
    encoder: Encoder,
    display: Display,
) -> tuple[Iterable[Passage], Plan]:
    passages = CorpusFile(corpus) if isinstance(corpus, str) else corpus
    found = survey(passages, sample=200, display=display)
    plan = make_plan(found, encoder.digest, encoder.dim, config)
    if _is_index(target):
        if IndexInfo.load(target).plan != plan.digest:
            raise InputError(
                f"{target} holds the index of another corpus, checkpoint or settings. "
                "Choose another folder, or delete that one."
            )
        return passages, plan
    begun = work.has(PLAN)
    # A killed upload of this build leaves an index without its last file at the URL.
    if Mirror(target).names("*") and not (work.remote and begun):
        raise InputError(f"{target} exists and is no index. Choose another folder.")
    if not (work.remote or begun):
        needed = needed_space(plan, found, encoder)
        storage.require_space(work.folder, needed, "building the index")
    agree(work, plan)
    return passages, plan


def _finished(target: str, work: Mirror) -> IndexInfo:
    """The index that is there; what a kill right after its publication left is removed."""
    work.remove()
    return IndexInfo.load(target)


def needed_space(plan: Plan, found: Survey, encoder: Encoder) -> int:
    """Bytes that the build needs at its peak, from the lengths of a sample."""
    return space(plan, found.bytes, tokens_per_passage(encoder, found.sample)).peak


def _merge(work: Mirror, plan: Plan, checkpoint: str, target: str, display: Display) -> IndexInfo:
    compress_shards(work, plan, display)
    if not work.remote and Path(target).exists():
        Path(target).rmdir()
    return join(work, plan, checkpoint, target)
