"""What the retrieval tests share: a generated corpus, and one index over it per session."""

from __future__ import annotations

import atexit
import functools
import hashlib
import random
import shutil
import tempfile
from pathlib import Path

from exsearch.config import RetrievalConfig
from exsearch.records import Passage
from exsearch.retrieval import Encoder, Searcher, build_index, demo_checkpoint
from exsearch.retrieval.progress import Display

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


def questions(count: int = 40) -> list[str]:
    return [f"Which {p.text.split()[3]} is called {p.title}?" for p in corpus()[:count]]


def digests(folder: Path) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.iterdir())}


@functools.cache
def _folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="exsearch-retrieval-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@functools.cache
def the_config() -> RetrievalConfig:
    checkpoint = demo_checkpoint(_folder() / "checkpoint")
    return RetrievalConfig(checkpoint=checkpoint, shard_size=25, batch_size=16)


@functools.cache
def the_encoder() -> Encoder:
    return Encoder(the_config().checkpoint, the_config())


@functools.cache
def the_index() -> Path:
    folder = _folder() / "index"
    build_index(corpus(), folder, the_config(), encoder=the_encoder(), display=SILENT)
    return folder


@functools.cache
def the_searcher() -> Searcher:
    return Searcher(the_index())
