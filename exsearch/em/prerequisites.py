"""What a run needs before it starts, looked at in seconds, all problems at once."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from itertools import islice

from exsearch.agent.chat import ChatFormat
from exsearch.agent.model_files import model_digest
from exsearch.config import RunConfig
from exsearch.data.corpus import read_corpus
from exsearch.em.questions import load_questions
from exsearch.errors import ExSearchError
from exsearch.retrieval.info import INFO, IndexInfo
from exsearch.storage import exists, explained, join, remove, write_atomic

LOOKED_AT = 100
"""Passages read to see whether a corpus can be."""


def problems(config: RunConfig) -> list[str]:
    """What is wrong with the model, the data and the storage of a run; empty: nothing is."""
    return [str(error) for check in _checks(config) if (error := _error_of(check))]


def _checks(config: RunConfig) -> Iterator[Callable[[], object]]:
    data, model = config.data, config.model.path
    yield lambda: model_digest(model)
    yield lambda: ChatFormat.load(model)
    if config.gate.champion:
        yield lambda: model_digest(config.gate.champion)
    index = config.retrieval.index
    if config.retrieval.url:
        pass
    elif index and exists(join(index, INFO)):
        yield lambda: IndexInfo.load(index)
    else:
        yield lambda: list(islice(read_corpus(data.corpus, skip_bad=data.skip_bad), LOOKED_AT))
    asked = {"train": data.train, "test": data.test}
    asked |= {"warmup": data.warmup} if data.warmup else {}
    asked |= {"dev": data.dev} if config.em.patience else {}
    for purpose, files in asked.items():
        yield lambda p=purpose, f=files: load_questions(f, data, p, lambda _: None)
    yield lambda: _write_something(config.run)


def _error_of(check: Callable[[], object]) -> ExSearchError | None:
    try:
        check()
    except ExSearchError as error:
        return error
    return None


def _write_something(folder: str) -> None:
    path = join(folder, f".writable-{uuid.uuid4().hex}")
    write_atomic(path, "")
    with explained(path, "remove"):
        remove(path)
