"""From gold episodes to the examples of the warm-up."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from exsearch.agent.chat import ChatFormat
from exsearch.agent.protocol import demonstrate
from exsearch.config import AgentConfig, RunConfig
from exsearch.data.warmup_files import CONVERSATIONS, DEMONSTRATIONS, synthesize
from exsearch.em.layout import Stage
from exsearch.errors import InputError
from exsearch.evaluation.files import read_jsonl
from exsearch.records import Conversation, Demonstration, Example, Passage
from exsearch.retrieval.retriever import Retriever
from exsearch.storage import exists, join, write_atomic


def blocking_search(
    retriever: Retriever, loop: asyncio.AbstractEventLoop
) -> Callable[[list[str], int], list[list[Passage]]]:
    """The retriever as a plain function, for synthesis running in a thread beside `loop`."""

    def search(queries: list[str], k: int) -> list[list[Passage]]:
        return asyncio.run_coroutine_threadsafe(retriever.search(queries, k), loop).result()

    return search


def examples_of(
    demonstrations: Iterable[Demonstration], agent: AgentConfig, chat: ChatFormat
) -> Iterator[Example]:
    """Gold episodes and, where selection is learned, their selections; each with weight 1."""
    for demonstration in demonstrations:
        yield from imitate(demonstrate(demonstration, agent), chat)


def imitate(conversations: Iterable[Conversation], chat: ChatFormat) -> Iterator[Example]:
    """Conversations as they stand, loss on every assistant turn."""
    for conversation in conversations:
        yield Example(id=conversation.id, transcript=chat.transcript(conversation))


def write_examples(config: RunConfig, stage: Stage, chat: ChatFormat) -> int:
    """Turn the warm-up stage's demonstrations, or imported conversations, into `examples.jsonl`.

    Returns:
        the number of examples.

    Raises:
        InputError: the stage has neither.
    """
    demonstrations = join(stage.folder, DEMONSTRATIONS)
    conversations = join(stage.folder, CONVERSATIONS)
    count = 0

    def lines() -> Iterator[str]:
        nonlocal count
        for example in examples:
            count += 1
            yield f"{example.to_line()}\n"

    if exists(demonstrations):
        made = read_jsonl(Demonstration, demonstrations)
        examples = examples_of(made, config.agent, chat)
    elif exists(conversations):
        examples = imitate(read_jsonl(Conversation, conversations), chat)
    else:
        raise InputError(
            f"{stage.folder} has no {DEMONSTRATIONS} and no {CONVERSATIONS}; "
            "run `exsearch warmup` first"
        )
    write_atomic(stage.examples, lines())
    return count


async def make_warmup(
    config: RunConfig,
    stage: Stage,
    chat: ChatFormat,
    retriever: Retriever,
    tell: Callable[[str], None],
) -> dict[str, Any]:
    """Write `demonstrations.jsonl` and `examples.jsonl` of the warm-up stage."""
    search = blocking_search(retriever, asyncio.get_running_loop())
    out = join(stage.folder, DEMONSTRATIONS)
    files, report = await asyncio.to_thread(synthesize, config, search, out)
    if files.skipped.total:
        tell(files.skipped.summary())
    count = write_examples(config, stage, chat)
    dropped = ", ".join(f"{n} {why}" for why, n in report.dropped.most_common()) or "none"
    tell(
        f"warm-up: {report.made} demonstrations from {report.read} questions, "
        f"{count} examples; dropped: {dropped}"
    )
    return {"examples": stage.examples, "count": count}
