"""The countries of the demo world: their entities, how these are linked, and their passages."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import chain, cycle

from exsearch.data import world_fillers as fillers
from exsearch.data.world_names import FIRST_NAMES, NameMaker
from exsearch.data.world_words import RELATIONS
from exsearch.records import Passage

SHARES = {"town": 0.24, "river": 0.14, "person": 0.44, "company": 0.22, "film": 0.34, "novel": 0.24}
"""Entities of each type per question: about 1.6 passages in all."""
LEAST = 4
"""Entities of each type, even in the smallest country."""
NAMESAKE_SHARE = 0.09
"""Distractor passages (namesakes, relatives) as a share of the entities."""
SHORTEST = 20
"""Words in the shortest passage; shorter ones get another filler sentence."""
OPENING = {
    **{"film": "released", "novel": "appeared", "company": "established"},
    **{"person": "birth", "river": "length"},
}
"""The relation stated in a passage's first sentence; a town opens with where it lies."""

Key = tuple[str, str]
"""(type, name): no two entities of the world share one."""


@dataclass(frozen=True)
class Value:
    """What a relation leads to: its text, and the entity of that name if it is one."""

    text: str
    entity: Key | None = None


@dataclass(frozen=True)
class Entity:
    """A thing with a passage of its own."""

    type: str
    name: str
    values: dict[str, Value]
    sentences: dict[str, str]
    """The sentence of the passage that states each relation, word for word."""
    text: str
    title: str = ""
    pid: str = ""

    @property
    def key(self) -> Key:
        return (self.type, self.name)

    @property
    def mention(self) -> str:
        """How a question calls it: unambiguous, since names are unique within a type."""
        noun = {"film": "the film ", "novel": "the novel ", "river": "the river "}
        return noun.get(self.type, "") + self.name


Country = dict[Key, Entity]


def found_country(questions: int, names: NameMaker, rng: random.Random) -> Country:
    """Invent the entities for so many questions, link them and write their passages."""
    facts = _relate(_invent(questions, names, rng), names, rng)
    return {key: _describe(key, values, rng) for key, values in facts.items()}


def _invent(questions: int, names: NameMaker, rng: random.Random) -> dict[str, list[str]]:
    """Names by type. Some films are called like a town or river, some novels like a film."""
    count = {kind: max(LEAST, round(share * questions)) for kind, share in SHARES.items()}
    towns = [names.word() for _ in range(count["town"])]
    rivers = [names.word() for _ in range(count["river"])]
    surnames = [names.word() for _ in range(count["person"] // 2)]
    people = [f"{first} {last}" for last in surnames for first in rng.sample(FIRST_NAMES, 2)]
    rng.shuffle(people)
    companies = [f"{names.word()} {tuple(fillers.TRADES)[i % 2]}" for i in range(count["company"])]
    shared = rng.sample(towns + rivers, count["film"] // 4)
    films = shared + [names.title() for _ in range(count["film"] - len(shared))]
    adapted = rng.sample(films, count["novel"] // 5)
    novels = adapted + [names.title() for _ in range(count["novel"] - len(adapted))]
    return {
        **{"town": towns, "river": rivers, "person": people},
        **{"company": companies, "film": films, "novel": novels},
    }


def _relate(
    things: dict[str, list[str]], names: NameMaker, rng: random.Random
) -> dict[Key, dict[str, Value]]:
    """Decide every fact; times are in order (born, then founded, then filmed)."""
    facts: dict[Key, dict[str, Value]] = {}

    def turns(kind: str, some: Iterable[str]) -> Iterator[Value]:
        shuffled = [Value(name, (kind, name)) for name in some]
        rng.shuffle(shuffled)
        return cycle(shuffled)

    def year(kind: str, value: Value) -> int:
        return int(facts[kind, value.text]["birth" if kind == "person" else "established"].text)

    lengths = rng.sample(range(40, 900), len(things["river"]))
    for name, length in zip(things["river"], lengths, strict=True):
        mouth = Value(f"Lake {names.word()}")
        facts["river", name] = {"length": Value(str(length)), "mouth": mouth}
    rivers = turns("river", things["river"])
    crafts = cycle(rng.sample(fillers.CRAFTS, len(fillers.CRAFTS)))
    for name in things["town"]:
        facts["town", name] = {"river": next(rivers), "craft": Value(next(crafts))}
    towns = turns("town", things["town"])
    for name, job in zip(things["person"], cycle(fillers.JOBS)):
        birth = Value(str(rng.randint(1900, 1950)))
        facts["person", name] = {"job": Value(job), "birth": birth, "born": next(towns)}
    people = things["person"]
    founders, directors, authors = (turns("person", people[i::3]) for i in range(3))
    for name in things["company"]:
        founder = next(founders)
        founded = Value(str(year("person", founder) + rng.randint(22, 45)))
        facts["company", name] = {
            **{"established": founded, "founder": founder, "based": next(towns)}
        }
    makers = {
        "film": (directors, turns("company", things["company"][0::2])),
        "novel": (authors, turns("company", things["company"][1::2])),
    }
    relations = {
        "film": ("released", "directed", "produced"),
        "novel": ("appeared", "wrote", "published"),
    }
    for kind, (artists, firms) in makers.items():
        for name in things[kind]:
            artist, firm = next(artists), next(firms)
            earliest = max(year("person", artist) + 24, year("company", firm) + 1)
            made = Value(str(earliest + rng.randint(0, 20)))
            facts[kind, name] = dict(zip(relations[kind], (made, artist, firm), strict=True))
    return facts


def _describe(key: Key, values: dict[str, Value], rng: random.Random) -> Entity:
    """Write the passage: an opening, the facts in any order, fillers up to length."""
    kind, name = key
    bag = {"n": name, "number": str(rng.randint(3, 90))}
    bag["trade"] = fillers.TRADES.get(name.split()[-1], "")
    bag |= {relation: value.text for relation, value in values.items()}
    bag |= {word: rng.choice(choices) for word, choices in fillers.WORDS.items()}
    sentences = {
        relation: rng.choice(RELATIONS[relation].sentences).format(v=value.text, **bag)
        for relation, value in values.items()
        if relation in RELATIONS
    }
    opening = sentences.get(OPENING.get(kind, "")) or rng.choice(fillers.TOWN_OPENINGS).format(
        **bag
    )
    rest = [sentence for sentence in sentences.values() if sentence != opening]
    rng.shuffle(rest)
    for filler in rng.sample(fillers.FILLERS[kind], len(fillers.FILLERS[kind])):
        if sum(len(part.split()) for part in [opening, *rest]) >= SHORTEST:
            break
        rest.insert(rng.randrange(len(rest) + 1), filler.format(**bag))
    return Entity(kind, name, values, sentences, " ".join([opening, *rest]))


def distractors(countries: Iterable[Country], rng: random.Random) -> list[tuple[str, str, str]]:
    """Things no question asks about that share a name with one that is asked about.

    Returns:
        (name, what it is, text) of ships, horses, … called like a town, river or film, and of
        people with a surname of others.
    """
    keys = sorted(chain.from_iterable(countries))
    named = [name for kind, name in keys if kind in ("town", "river", "film")]
    taken = {name for kind, name in keys if kind == "person"}
    families = sorted({name.split()[-1] for name in taken})
    fresh = [
        f"{next(first for first in FIRST_NAMES if f'{first} {last}' not in taken)} {last}"
        for last in families
    ]
    count = round(NAMESAKE_SHARE * len(keys) / 2)
    made: list[tuple[str, str, str]] = []
    for pool, templates in ((named, fillers.NAMESAKES), (fresh, fillers.RELATIVES)):
        for name in rng.sample(sorted(set(pool)), min(count, len(set(pool)))):
            what, template = rng.choice(templates)
            bag = {key: rng.choice(choices) for key, choices in fillers.WORDS.items()}
            bag |= {"number": str(rng.randint(3, 90)), "year": str(rng.randint(1930, 2010))}
            made.append((name, what, template.format(n=name, **bag)))
    return made


def publish(
    countries: dict[str, Country], others: list[tuple[str, str, str]], rng: random.Random
) -> tuple[dict[str, Country], tuple[Passage, ...]]:
    """Give every passage its title and id: one shuffled corpus over all countries.

    A name borne by several things is told apart as an encyclopedia does: "Orla (river)".
    """
    bearers = Counter(name for name, _, _ in others)
    bearers.update(name for country in countries.values() for _, name in country)
    entries: list[tuple[str, Key, str]] = [("", (what, name), text) for name, what, text in others]
    for split, country in countries.items():
        entries += [(split, entity.key, entity.text) for entity in country.values()]
    rng.shuffle(entries)
    passages: list[Passage] = []
    published: dict[str, Country] = {split: {} for split in countries}
    for number, (split, key, text) in enumerate(entries, 1):
        kind, name = key
        title = f"{name} ({kind})" if bearers[name] > 1 else name
        passages.append(Passage(pid=str(number), title=title, text=text))
        if split:
            published[split][key] = replace(countries[split][key], title=title, pid=str(number))
    return published, tuple(passages)
