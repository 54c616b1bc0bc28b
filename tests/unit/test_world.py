"""The demo world: deterministic, disjoint, answerable in exactly one way."""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from itertools import combinations, pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exsearch.data.corpus import read_corpus
from exsearch.data.questions import detect_format, read_questions
from exsearch.data.world import SIZES, World, build_world, write_world
from exsearch.data.world_words import BRIDGE2, BRIDGE3, RELATIONS
from exsearch.records import Passage, Question

pytestmark = pytest.mark.unit

SMALL = {"warmup": 12, "train": 24, "dev": 12, "test": 18}


@pytest.fixture(scope="module")
def world() -> World:
    return build_world(0)


def all_questions(world: World) -> list[Question]:
    return [question for questions in world.questions.values() for question in questions]


def passages_by_id(world: World) -> dict[str, Passage]:
    return {passage.pid: passage for passage in world.passages}


def test_sizes_and_mix(world: World) -> None:
    assert 900 <= len(world.passages) <= 1100
    for split, questions in world.questions.items():
        kinds = Counter(question.kind for question in questions)
        assert len(questions) == SIZES[split]
        assert kinds["bridge3"] == round(0.25 * len(questions))
        assert kinds["comparison"] == round(0.10 * len(questions))
        assert len({question.question for question in questions}) == len(questions)
        assert len({question.id for question in questions}) == len(questions)


def test_passages_are_short_and_unique(world: World) -> None:
    lengths = [len(passage.text.split()) for passage in world.passages]
    assert min(lengths) >= 20
    assert max(lengths) <= 36
    assert len({passage.pid for passage in world.passages}) == len(world.passages)
    assert len({passage.title for passage in world.passages}) == len(world.passages)


def test_same_seed_same_bytes(tmp_path) -> None:
    for folder in ("a", "b"):
        write_world(tmp_path / folder, 5, **SMALL)
    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert names == ["corpus.jsonl", "dev.jsonl", "test.jsonl", "train.jsonl", "warmup.jsonl"]
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    write_world(tmp_path / "c", 6, **SMALL)
    assert (tmp_path / "a/train.jsonl").read_bytes() != (tmp_path / "c/train.jsonl").read_bytes()


@given(seed=st.integers(0, 10_000))
@settings(max_examples=12, deadline=None)
def test_splits_share_no_entity(seed: int) -> None:
    world = build_world(seed, **SMALL)
    names = {
        split: {entity.name for entity in country.values()}
        | {surname for kind, name in country for surname in name.split()[1:] if kind == "person"}
        for split, country in world.countries.items()
    }
    pids = {
        split: {pid for question in questions for pid in question.pids}
        for split, questions in world.questions.items()
    }
    for a, b in combinations(names, 2):
        assert not names[a] & names[b]
        assert not pids[a] & pids[b]
    for split, country in world.countries.items():
        for entity in country.values():
            for value in entity.values.values():
                assert value.entity is None or value.entity in world.countries[split]


@given(seed=st.integers(0, 10_000))
@settings(max_examples=12, deadline=None)
def test_gold_is_in_the_corpus(seed: int) -> None:
    world = build_world(seed, **SMALL)
    corpus = passages_by_id(world)
    for question in all_questions(world):
        assert question.hops == len(question.decomposition)
        assert set(question.pids) == {hop.pid for hop in question.decomposition}
        assert set(question.titles) == {hop.title for hop in question.decomposition}
        for hop in question.decomposition:
            passage = corpus[hop.pid or ""]
            assert passage.title == hop.title
            assert hop.fact is not None
            assert hop.fact in passage.text
            assert hop.answer in hop.fact


@given(seed=st.integers(0, 10_000))
@settings(max_examples=12, deadline=None)
def test_bridges_chain_and_do_not_tell_the_answer(seed: int) -> None:
    world = build_world(seed, **SMALL)
    for question in all_questions(world):
        if question.kind == "comparison":
            continue
        for hop, after in zip(question.decomposition, question.decomposition[1:], strict=False):
            assert hop.answer in after.query, "a later sub-query names what the hop before found"
        assert question.decomposition[-1].answer == question.answers[0]
        for hop in question.decomposition:
            assert hop.answer not in question.question


def stated_facts(world: World) -> dict[tuple[str, str], set[str]]:
    """Every sub-query a relation could pose, with all answers that any entity's facts give."""
    facts: dict[tuple[str, str], set[str]] = defaultdict(set)
    for country in world.countries.values():
        for entity in country.values():
            for key, value in entity.values.items():
                if key in RELATIONS:
                    facts[key, entity.mention].add(value.text)
    return facts


def test_every_sub_query_has_one_answer(world: World) -> None:
    facts = stated_facts(world)
    answers: dict[str, set[str]] = defaultdict(set)
    for (key, mention), values in facts.items():
        answers[RELATIONS[key].query.format(x=mention)] |= values
    for question in all_questions(world):
        for hop in question.decomposition:
            assert answers[hop.query] == {hop.answer}


def test_comparisons_are_decided_by_their_facts(world: World) -> None:
    told: Counter[str] = Counter()
    for question in all_questions(world):
        if question.kind != "comparison":
            continue
        first, second = question.decomposition
        assert first.pid != second.pid
        if question.answers[0] in ("yes", "no"):
            told[question.answers[0]] += 1
            assert (question.answers[0] == "yes") == (first.answer == second.answer)
            continue
        values = [int(first.answer), int(second.answer)]
        assert values[0] != values[1]
        wanted = max(values) if "long" in question.question else min(values)
        assert (first, second)[values.index(wanted)].title.startswith(question.answers[0])
    assert 0.5 <= told["yes"] / told["no"] <= 2.0


def test_names_are_shared_and_told_apart(world: World) -> None:
    bearers: dict[str, set[str]] = defaultdict(set)
    for passage in world.passages:
        if match := re.fullmatch(r"(.*) \((.*)\)", passage.title):
            bearers[match[1]].add(match[2])
    assert any({"film", "river"} <= kinds for kinds in bearers.values())
    assert all(len(kinds) > 1 for kinds in bearers.values())
    surnames = Counter(
        entity.name.split()[-1]
        for country in world.countries.values()
        for entity in country.values()
        if entity.type == "person"
    )
    assert sum(count > 1 for count in surnames.values()) > 50


def relation_of(query: str) -> str:
    keys = [
        key
        for key, relation in RELATIONS.items()
        if re.fullmatch(re.escape(relation.query).replace(r"\{x\}", ".+"), query)
    ]
    return keys[0] if keys[0] != "birth" or "year" in query else keys[1]


def test_relations_are_the_same_in_every_split(world: World) -> None:
    for kind, paths in (("bridge2", BRIDGE2), ("bridge3", BRIDGE3)):
        for questions in world.questions.values():
            asked = {
                " ".join(relation_of(hop.query) for hop in question.decomposition)
                for question in questions
                if question.kind == kind
            }
            assert asked == set(paths)


def test_paths_are_well_typed() -> None:
    for path in (*BRIDGE2, *BRIDGE3):
        relations = [RELATIONS[key] for key in path.split()]
        for relation, after in pairwise(relations):
            assert relation.target == after.source
            assert relation.phrases


def test_wording_varies(world: World) -> None:
    facts = [hop.fact for question in all_questions(world) for hop in question.decomposition]
    directed = {
        re.sub(r"The \w+ \w+|[A-Z]\w+ [A-Z]\w+|[A-Z]\w+", "_", fact or "")
        for fact in facts
        if fact and ("directed" in fact or "direction" in fact or "director" in fact)
    }
    assert len(directed) >= 3


def test_written_files_read_back(tmp_path) -> None:
    lines = write_world(tmp_path, 1, **SMALL)
    world = build_world(1, **SMALL)
    corpus = list(read_corpus(str(tmp_path / "corpus.jsonl")))
    assert tuple(corpus) == world.passages
    assert lines["corpus.jsonl"] == len(corpus)
    for split, questions in world.questions.items():
        path = str(tmp_path / f"{split}.jsonl")
        assert detect_format(path) == "exsearch"
        assert tuple(read_questions(path)) == questions
    first = (tmp_path / "corpus.jsonl").read_text().splitlines()[0]
    assert sorted(json.loads(first)) == ["id", "text", "title"]


@pytest.mark.parametrize("count", [1, 2, 5, 700])
def test_other_sizes(count: int) -> None:
    world = build_world(3, warmup=1, train=1, dev=1, test=count)
    assert len(world.questions["test"]) == count
