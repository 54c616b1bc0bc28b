"""The demo world: an encyclopedia of things that do not exist, and questions about it.

Each split (warm-up, train, dev, test) is a country of its own: its people, films,
novels, companies, towns and rivers refer to each other and to nothing outside, so
what is learned on one split cannot be recalled on another. All passages share one
corpus, so every country is full of distractors for the rest; on top come namesakes
(a film, a river and a ship called Orla, people of one surname).

    exsearch world demo/        # corpus.jsonl, warmup.jsonl, train.jsonl, dev.jsonl, test.jsonl

The same seed gives the same bytes.
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from pathlib import Path

from exsearch import storage
from exsearch.data.world_country import Country, distractors, found_country, publish
from exsearch.data.world_names import NameMaker
from exsearch.data.world_questions import ask_questions
from exsearch.records import Passage, Question

SIZES = {"warmup": 64, "train": 320, "dev": 64, "test": 128}
"""Questions in each split."""


@dataclass(frozen=True)
class World:
    """The corpus, the questions of each split, and the facts they were made from."""

    passages: tuple[Passage, ...]
    questions: dict[str, tuple[Question, ...]]
    countries: dict[str, Country]


def build_world(
    seed: int = 0,
    *,
    warmup: int = SIZES["warmup"],
    train: int = SIZES["train"],
    dev: int = SIZES["dev"],
    test: int = SIZES["test"],
) -> World:
    """Invent a world.

    Args:
        seed: the same seed and sizes give an equal world.
        warmup: questions in this split (and likewise the others): 45 % are two-hop bridges,
            35 % three-hop bridges, 20 % comparisons. The corpus holds about 1.75 passages
            per question.
    """
    sizes = {"warmup": warmup, "train": train, "dev": dev, "test": test}
    names = NameMaker(random.Random(f"{seed}/names"))
    founded = {
        split: found_country(size, names, random.Random(f"{seed}/{split}/country"))
        for split, size in sizes.items()
    }
    rng = random.Random(f"{seed}/corpus")
    countries, passages = publish(founded, distractors(founded.values(), rng), rng)
    questions = {
        split: ask_questions(
            countries[split], split, size, random.Random(f"{seed}/{split}/questions")
        )
        for split, size in sizes.items()
    }
    return World(passages, questions, countries)


def write_world(
    folder: str | Path,
    seed: int = 0,
    *,
    warmup: int = SIZES["warmup"],
    train: int = SIZES["train"],
    dev: int = SIZES["dev"],
    test: int = SIZES["test"],
) -> dict[str, int]:
    """Build a world and write `corpus.jsonl` and one `SPLIT.jsonl` per split into `folder`.

    Returns:
        Lines written, by file name.

    Raises:
        StorageError: the folder cannot be written.
    """
    world = build_world(seed, warmup=warmup, train=train, dev=dev, test=test)
    files = {
        "corpus.jsonl": [
            json.dumps({"id": p.pid, "title": p.title, "text": p.text}) for p in world.passages
        ]
    }
    for split, questions in world.questions.items():
        files[f"{split}.jsonl"] = [question.to_line() for question in questions]
    for name, lines in files.items():
        storage.write_atomic(storage.join(folder, name), "".join(f"{line}\n" for line in lines))
    return {name: len(lines) for name, lines in files.items()}
