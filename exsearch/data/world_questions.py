"""Questions about one country of the demo world, with everything that is gold about them."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from itertools import combinations

from exsearch.data import world_words as words
from exsearch.data.world_country import Country, Entity, Key, Value
from exsearch.errors import InputError
from exsearch.records import Hop, Question

MIX = {"bridge3": 0.25, "comparison": 0.10}
"""Shares of the kinds of question; the rest are two-hop bridges."""


def ask_questions(
    country: Country, split: str, count: int, rng: random.Random
) -> tuple[Question, ...]:
    """Ask `count` different questions: every relation path in turn, the least asked entities first.

    Raises:
        InputError: the country is too small for so many (not at the sizes of `found_country`).
    """
    numbers = {kind: round(share * count) for kind, share in MIX.items()}
    numbers["bridge2"] = count - sum(numbers.values())
    used: Counter[Key] = Counter()
    drafts: list[Question] = []
    for kind, number in numbers.items():
        drafts += _take_turns(_sources(kind, country, used, rng), number, kind)
    rng.shuffle(drafts)
    return tuple(
        draft.model_copy(update={"id": f"{split}-{number:04d}"})
        for number, draft in enumerate(drafts, 1)
    )


def _sources(
    kind: str, country: Country, used: Counter[Key], rng: random.Random
) -> list[Iterator[Question]]:
    """One stream of questions per relation path or comparison, in random order."""
    if kind == "comparison":
        sources = [_compare(c, country, used, rng) for c in words.COMPARISONS]
    else:
        paths = {"bridge2": words.BRIDGE2, "bridge3": words.BRIDGE3}[kind]
        sources = [_bridge(kind, path.split(), country, used, rng) for path in paths]
    rng.shuffle(sources)
    return sources


def _take_turns(sources: list[Iterator[Question]], number: int, kind: str) -> list[Question]:
    taken: list[Question] = []
    while len(taken) < number:
        if not sources:
            raise InputError(f"a country this small yields {len(taken)}, not {number}, {kind}s")
        source = sources.pop(0)
        if (question := next(source, None)) is not None:
            taken.append(question)
            sources.append(source)
    return taken


def _bridge(
    kind: str, path: list[str], country: Country, used: Counter[Key], rng: random.Random
) -> Iterator[Question]:
    """Questions that follow `path` from each entity of its first relation's type."""
    relations = [words.RELATIONS[key] for key in path]
    starts = _shuffled([e for e in country.values() if e.type == relations[0].source], rng)
    while starts:
        start = starts.pop(min(range(len(starts)), key=lambda i: used[starts[i].key]))
        used[start.key] += 1
        hops, value = _follow(start, path, country)
        phrase = start.mention
        for relation in relations[:-1]:
            phrase = rng.choice(relation.phrases).format(x=phrase)
        text = rng.choice(relations[-1].questions).format(x=phrase)
        if not any(hop.answer in text for hop in hops):  # a name shared along the chain tells it
            yield _question(kind, text, _aliases(value), hops)


def _follow(start: Entity, path: list[str], country: Country) -> tuple[list[Hop], Value]:
    """The gold hops of a path, and where it ends."""
    hops: list[Hop] = []
    here, value = start, Value(start.name, start.key)
    for key in path:
        assert value.entity is not None, f"{key} starts from an entity"
        here = country[value.entity]
        value = here.values[key]
        hops.append(_hop(here, key))
    return hops, value


def _hop(entity: Entity, relation: str) -> Hop:
    return Hop(
        query=words.RELATIONS[relation].query.format(x=entity.mention),
        answer=entity.values[relation].text,
        title=entity.title,
        pid=entity.pid,
        fact=entity.sentences[relation],
    )


def _compare(
    comparison: words.Comparison, country: Country, used: Counter[Key], rng: random.Random
) -> Iterator[Question]:
    """Questions over pairs of entities; yes and no alternate where they are the answers."""
    key = comparison.relation
    kind = words.RELATIONS[key].source
    entities = _shuffled([e for e in country.values() if e.type == kind], rng)
    agree: dict[bool, list[tuple[Entity, Entity]]] = {True: [], False: []}
    for a, b in combinations(entities, 2):
        agree[a.values[key].text == b.values[key].text].append((a, b))
    wanted = comparison.same
    while agree[wanted]:
        pairs = agree[wanted]
        best = min(range(len(pairs)), key=lambda i: sum(used[e.key] for e in pairs[i]))
        pair = pairs.pop(best)
        used.update(e.key for e in pair)
        text = rng.choice(comparison.questions).format(a=pair[0].name, b=pair[1].name)
        if comparison.same:
            answers: tuple[str, ...] = ("yes" if wanted else "no",)
            wanted = not wanted
        else:
            order = sorted(pair, key=lambda e: int(e.values[key].text))
            winner = order[-1] if key == "length" else order[0]
            answers = _aliases(Value(winner.name, winner.key))
        yield _question("comparison", text, answers, [_hop(e, key) for e in pair])


def _aliases(value: Value) -> tuple[str, ...]:
    """The answer and the other ways to write it that count as right."""
    name = value.text
    if value.entity is None:
        return (name, name.removeprefix("Lake ")) if name.startswith("Lake ") else (name,)
    return {
        "river": (name, f"River {name}", f"{name} River"),
        "company": (name, name.split()[0]),
        "film": (name, f"the film {name}"),
    }.get(value.entity[0], (name,))


def _question(kind: str, text: str, answers: tuple[str, ...], hops: list[Hop]) -> Question:
    titles = dict.fromkeys(hop.title for hop in hops if hop.title)
    pids = dict.fromkeys(hop.pid for hop in hops if hop.pid)
    return Question(
        id="draft",
        question=text[0].upper() + text[1:],
        answers=answers,
        dataset="world",
        kind=kind,
        hops=len(hops),
        titles=tuple(titles),
        pids=tuple(pids),
        decomposition=tuple(hops),
    )


def _shuffled(entities: list[Entity], rng: random.Random) -> list[Entity]:
    rng.shuffle(entities)
    return entities
