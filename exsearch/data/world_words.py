"""How the demo world talks: every relation in several wordings.

A relation is stated in a passage by one of `sentences`, asked by one of
`questions`, and stands inside a longer question as one of `phrases`, so a path
of relations over a start entity yields its question by nesting:

    river(born(directed(x)))  →  "Which river flows through the town where the
                                  director of the film Orla was born?"
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Relation:
    """One relation between an entity `x` and its value `v`; `n` is the entity's bare name."""

    key: str
    source: str
    """Type of the entity it starts from."""
    target: str
    """Type of the entity it leads to, or "value"."""
    query: str
    """The sub-query that asks for it."""
    sentences: tuple[str, ...]
    questions: tuple[str, ...]
    phrases: tuple[str, ...] = ()


_ALL = (
    Relation(
        "released",
        "film",
        "value",
        "In which year was {x} released?",
        (
            "{n} is a {genre} film released in {v}.",
            "{n} is a {genre} film that came out in {v}.",
            "Released in {v}, {n} is a {genre} film.",
        ),
        ("In which year was {x} released?",),
    ),
    Relation(
        "directed",
        "film",
        "person",
        "Who directed {x}?",
        (
            "{v} directed {n}.",
            "The director of {n} was {v}.",
            "{n} was directed by {v}.",
            "{n} was made under the direction of {v}.",
        ),
        ("Who directed {x}?", "Who was the director of {x}?"),
        ("the director of {x}", "the person who directed {x}"),
    ),
    Relation(
        "produced",
        "film",
        "company",
        "Which company produced {x}?",
        (
            "{n} was produced by {v}.",
            "{v} produced {n}.",
            "The company behind {n} was {v}.",
            "{n} was paid for and produced by {v}.",
        ),
        ("Which company produced {x}?", "Which company was behind {x}?"),
        ("the company that produced {x}", "the producer of {x}"),
    ),
    Relation(
        "appeared",
        "novel",
        "value",
        "In which year did {x} appear?",
        (
            "{n} is a {genre} novel of {v}.",
            "{n} is a {genre} novel that appeared in {v}.",
            "First printed in {v}, {n} is a {genre} novel.",
        ),
        ("In which year did {x} appear?",),
    ),
    Relation(
        "wrote",
        "novel",
        "person",
        "Who wrote {x}?",
        (
            "{v} wrote {n}.",
            "The author of {n} is {v}.",
            "{n} was written by {v}.",
            "{n} came from the pen of {v}.",
        ),
        ("Who wrote {x}?", "Who is the author of {x}?"),
        ("the author of {x}", "the person who wrote {x}"),
    ),
    Relation(
        "published",
        "novel",
        "company",
        "Which company published {x}?",
        (
            "{n} was published by {v}.",
            "{v} published {n}.",
            "The publisher of {n} was {v}.",
            "{n} was brought out by {v}.",
        ),
        ("Which company published {x}?", "Who was the publisher of {x}?"),
        ("the publisher of {x}", "the company that published {x}"),
    ),
    Relation(
        "established",
        "company",
        "value",
        "In which year was {x} founded?",
        (
            "{n} is a {trade} founded in {v}.",
            "{n} is a {trade} set up in {v}.",
            "{n}, a {trade}, was established in {v}.",
        ),
        ("In which year was {x} founded?", "When was {x} set up?"),
    ),
    Relation(
        "founder",
        "company",
        "person",
        "Who founded {x}?",
        (
            "{v} founded {n}.",
            "The founder of {n} was {v}.",
            "{n} was started by {v}.",
            "{n} was the idea of {v}, its founder.",
        ),
        ("Who founded {x}?", "Who was the founder of {x}?"),
        ("the founder of {x}", "the person who founded {x}"),
    ),
    Relation(
        "based",
        "company",
        "town",
        "In which town is {x} based?",
        (
            "{n} is based in {v}.",
            "{n} has its head office in {v}.",
            "The head office of {n} is in {v}.",
            "{n} works from the town of {v}.",
        ),
        ("In which town is {x} based?", "In which town does {x} have its head office?"),
        ("the town where {x} is based", "the town where {x} has its head office"),
    ),
    Relation(
        "birth",
        "person",
        "value",
        "In which year was {x} born?",
        (
            "{n}, born in {v}, is a {job}.",
            "{n} (born {v}) is a {job}.",
            "Born in {v}, {n} worked as a {job}.",
        ),
        ("In which year was {x} born?", "What is the birth year of {x}?"),
    ),
    Relation(
        "born",
        "person",
        "town",
        "In which town was {x} born?",
        (
            "{n} was born in {v}.",
            "{n} comes from the town of {v}.",
            "{n} is a native of {v}.",
            "The birthplace of {n} is {v}.",
        ),
        ("In which town was {x} born?", "What is the birthplace of {x}?"),
        ("the town where {x} was born", "the birthplace of {x}"),
    ),
    Relation(
        "river",
        "town",
        "river",
        "On which river does the town of {x} lie?",
        (
            "The river {v} flows through {n}.",
            "{n} stands on the river {v}.",
            "{n} lies on the banks of the {v}.",
            "The {v} runs through the middle of {n}.",
        ),
        ("Which river flows through {x}?", "Which river runs through {x}?"),
        ("the river that flows through {x}", "the river that runs through {x}"),
    ),
    Relation(
        "craft",
        "town",
        "value",
        "What is {x} known for making?",
        (
            "{n} is known for its {v}.",
            "{n} is known for making {v}.",
            "Buyers come to {n} for its {v}.",
            "The workshops of {n} make {v}.",
        ),
        ("What is {x} known for making?", "Which goods are made in {x}?"),
    ),
    Relation(
        "length",
        "river",
        "value",
        "How long is {x}?",
        (
            "The {n} is a river {v} kilometres long.",
            "The river {n} is {v} kilometres long.",
            "A river of {v} kilometres, the {n} crosses the {region}.",
        ),
        ("How long is {x}?",),
    ),
    Relation(
        "mouth",
        "river",
        "value",
        "Into which lake does {x} flow?",
        (
            "The {n} flows into {v}.",
            "The {n} ends in {v}.",
            "The mouth of the {n} is at {v}.",
            "The waters of the {n} reach {v}.",
        ),
        ("Into which lake does {x} flow?", "In which lake does {x} end?"),
    ),
)

RELATIONS: dict[str, Relation] = {relation.key: relation for relation in _ALL}

BRIDGE2 = (
    *("directed born", "produced based", "wrote born", "published based"),
    *("founder born", "born river"),
)
BRIDGE3 = (
    *("produced founder born", "published founder born"),
    *("directed born river", "wrote born river"),
)


@dataclass(frozen=True)
class Comparison:
    """Two entities of a type, one relation: who is first, or whether they agree."""

    relation: str
    questions: tuple[str, ...]
    same: bool = False
    """Yes or no; otherwise the entity with the smaller value (larger for a length)."""


COMPARISONS = (
    Comparison(
        "released",
        (
            "Which film was released first, {a} or {b}?",
            "Which came out earlier, the film {a} or the film {b}?",
        ),
    ),
    Comparison("birth", ("Who was born first, {a} or {b}?", "Who is older, {a} or {b}?")),
    Comparison(
        "established",
        ("Which company was founded first, {a} or {b}?", "Which is the older company, {a} or {b}?"),
    ),
    Comparison(
        "length",
        (
            "Which river is longer, the {a} or the {b}?",
            "Which is the longer river, the {a} or the {b}?",
        ),
    ),
    Comparison(
        "directed",
        (
            "Were the films {a} and {b} directed by the same person?",
            "Do the films {a} and {b} have the same director?",
        ),
        same=True,
    ),
    Comparison(
        "wrote",
        (
            "Were the novels {a} and {b} written by the same person?",
            "Do the novels {a} and {b} have the same author?",
        ),
        same=True,
    ),
    Comparison(
        "born",
        ("Were {a} and {b} born in the same town?", "Do {a} and {b} come from the same town?"),
        same=True,
    ),
)
