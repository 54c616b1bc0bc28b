"""HotpotQA (Yang et al., 2018) and 2WikiMultihopQA (Ho et al., 2020).

Both mark supporting facts, `[title, sentence number]`, and give the sentences in
`context`; HotpotQA says nothing of the sub-questions, 2WikiMultihopQA gives evidence
triples. The sub-queries of a HotpotQA decomposition are derived by a plain rule:

* *comparison*: one hop per title, in the order the question names them; the sub-query
  is the title and the question's content words that are in no title;
* *bridge*: the title whose facts state the answer comes last, else the one that the
  others mention. The first sub-query is its title if the question names it, else the
  whole question. A later one is its title (where the question or an earlier fact names it;
  else the title before) and the question's content words found in no title or earlier fact.

So a sub-query never names what the agent could not know at that step. A hop's answer
is the next title in a bridge, the supporting sentence in a comparison.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from exsearch.data.lines import FieldError, clean_text, list_field, text_field
from exsearch.data.sentences import content_words, states
from exsearch.records import Hop, Question

_DISAMBIGUATION = re.compile(r"\s*\([^)]*\)$")


@dataclass(frozen=True)
class Support:
    """A gold title and its supporting sentences, joined; no fact where context is absent."""

    title: str
    fact: str | None

    @property
    def name(self) -> str:
        """The title without what only tells it from others."""
        return _DISAMBIGUATION.sub("", self.title) or self.title

    def states(self, text: str) -> bool:
        return self.fact is not None and states(self.fact, text)


def parse_hotpotqa(record: dict[str, Any]) -> Question:
    """One HotpotQA record.

    Raises:
        FieldError: a field is missing or wrong.
    """
    return _question(record, "hotpotqa")


def parse_2wiki(record: dict[str, Any]) -> Question:
    """One 2WikiMultihopQA record; evidence triples become sub-queries where they match.

    Raises:
        FieldError: a field is missing or wrong.
    """
    return _question(record, "2wiki")


def _question(record: dict[str, Any], dataset: str) -> Question:
    text, answer = text_field(record, "question"), text_field(record, "answer")
    kind = str(record.get("type") or "")
    facts = supports(record)
    triples = _triples(record) if dataset == "2wiki" else []
    hops = from_triples(facts, triples) if triples else ()
    hops = hops or derive(text, answer, facts, comparison="comparison" in kind)
    return Question(
        id=text_field(record, "_id" if "_id" in record else "id"),
        question=text,
        answers=(answer,),
        dataset=dataset,
        kind=kind,
        hops=len(facts) or None,
        titles=tuple(support.title for support in facts),
        decomposition=hops,
    )


def supports(record: dict[str, Any]) -> list[Support]:
    """The gold titles in order of first mention, each with its sentences.

    Reads the original lists (`[[title, number], …]`) and the columns of the copies on hubs
    (`{"title": […], "sent_id": […]}`).

    Raises:
        FieldError: neither shape.
    """
    marked = _pairs(record, "supporting_facts", ("title",), ("sent_id",))
    context = dict(_pairs(record, "context", ("title",), ("sentences", "content")))
    sentences: dict[str, list[str]] = {}
    for title, number in marked:
        if not isinstance(number, int):
            raise FieldError("supporting_facts", f"{number!r} is no sentence number")
        kept = sentences.setdefault(clean_text(str(title), "supporting_facts").strip(), [])
        paragraph = context.get(title)
        if isinstance(paragraph, list) and 0 <= number < len(paragraph):
            kept.append(clean_text(str(paragraph[number]), "context").strip())
    return [Support(title, " ".join(kept) or None) for title, kept in sentences.items()]


def _pairs(
    record: dict[str, Any], name: str, first: tuple[str, ...], second: tuple[str, ...]
) -> list[tuple[Any, Any]]:
    value = record.get(name) or []
    if isinstance(value, dict):
        columns = [next((value[k] for k in keys if k in value), None) for keys in (first, second)]
        if any(not isinstance(column, list) for column in columns):
            raise FieldError(name, f"must have the columns {first[0]} and {second[0]}")
        value = [list(pair) for pair in zip(columns[0] or [], columns[1] or [], strict=False)]
    if not isinstance(value, list) or any(
        not isinstance(pair, list) or len(pair) != 2 for pair in value
    ):
        raise FieldError(name, "must be a list of pairs")
    return [(str(pair[0]), pair[1]) for pair in value]


def derive(
    question: str, answer: str, facts: list[Support], *, comparison: bool
) -> tuple[Hop, ...]:
    """Sub-queries by the module's rule; empty without gold titles."""
    if comparison:
        low = question.lower()
        ordered = sorted(facts, key=lambda s: low.find(s.name.lower()) % (len(low) + 1))
        words = _words_beside(question, [support.title for support in facts])
        queries = [" ".join([support.name, *words]) for support in ordered]
        answers = [support.fact or support.name for support in ordered]
    else:
        ordered = _bridge_order(facts, answer)
        queries = [_bridge_query(question, ordered, place) for place in range(len(ordered))]
        answers = [*(support.name for support in ordered[1:]), answer]
    return tuple(
        Hop(query=query, answer=found, title=support.title, fact=support.fact)
        for query, found, support in zip(queries, answers, ordered, strict=False)
    )


def _bridge_order(facts: list[Support], answer: str) -> list[Support]:
    """Who states the answer goes last; of two alike, who mentions the other goes first."""

    def rank(support: Support) -> tuple[bool, int]:
        others = [other for other in facts if other is not support]
        outgoing = sum(support.states(other.name) for other in others)
        incoming = sum(other.states(support.name) for other in others)
        return (support.states(answer), incoming - outgoing)

    return sorted(facts, key=rank)


def _bridge_query(question: str, ordered: list[Support], place: int) -> str:
    here, before = ordered[place], ordered[:place]
    known = states(question, here.name) or any(earlier.states(here.name) for earlier in before)
    if not before:
        return here.name if known else question
    name = here.name if known else before[-1].name
    told = [here.title] if known else []
    told += [text for earlier in before for text in (earlier.title, earlier.fact or "")]
    return " ".join([name, *_words_beside(question, told)])


def _words_beside(question: str, told: list[str]) -> list[str]:
    """The question's content words that stand in none of the texts."""
    there = {word.lower() for text in told for word in content_words(text)}
    return [word for word in content_words(question) if word.lower() not in there]


def _triples(record: dict[str, Any]) -> list[tuple[str, str, str]]:
    triples = list_field(record, "evidences")
    if any(not isinstance(triple, list) or len(triple) != 3 for triple in triples):
        raise FieldError("evidences", "must be a list of [subject, relation, object]")
    return [(str(subject), str(relation), str(obj)) for subject, relation, obj in triples]


def from_triples(facts: list[Support], triples: list[tuple[str, str, str]]) -> tuple[Hop, ...]:
    """One hop per triple, supported by the title its subject names, else by its place.

    Empty where a triple can be given no title: the general rule then serves.
    """
    hops: list[Hop] = []
    for place, (subject, relation, obj) in enumerate(triples):
        named = [s for s in facts if subject.lower() in (s.title.lower(), s.name.lower())]
        placed = facts[place : place + 1] if len(facts) == len(triples) else []
        support = next(iter(named or placed), None)
        if support is None:
            return ()
        query = f"{relation} of {subject}"
        hops.append(Hop(query=query, answer=obj, title=support.title, fact=support.fact))
    return tuple(hops)
