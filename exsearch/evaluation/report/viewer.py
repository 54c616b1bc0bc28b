"""The episodes a reader can look at: which, and side by side with what.

A group is a list of questions, each with cards side by side: the K samples of a
round's E-step, or the stages' episodes on one test question. The choice depends
on the seed and the ids alone, so that the same questions turn up in every round.
What is embedded is bounded: texts are cut, passages are kept once, and the number
of questions is halved until all fits `BUDGET`.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any

from exsearch.evaluation.files import read_jsonl
from exsearch.evaluation.judgement import Judgement
from exsearch.evaluation.report.packing import Shelf, pack_question, pack_sample, pack_stage
from exsearch.evaluation.report.sources import Round, Run, evaluation_files
from exsearch.records import Question, Trajectory, parse_line
from exsearch.storage import exists, join, open_text

MOST_QUESTIONS = 60
"""Questions per group, at most."""

BUDGET = 6_000_000
"""Bytes of embedded JSON, at most (unless a single question is larger still)."""

_ID_FIRST = re.compile(r'\{"(?:question_)?id":("(?:[^"\\]|\\.)*")')


def build_viewer(run: Run, seed: int) -> dict[str, Any]:
    """The viewer's data: `{"groups": […], "passages": [[title, text], …]}`.

    Files that cannot be read become notes of the run.
    """
    limit = MOST_QUESTIONS
    while True:
        data = _build(run, seed, limit)
        if limit == 1 or len(json.dumps(data)) <= BUDGET:
            return data
        limit = max(1, limit // 2)


def choose(ids: Iterable[str], seed: int, limit: int) -> list[str]:
    """At most `limit` ids, chosen by seed and id alone, in the order given."""
    known = list(dict.fromkeys(ids))
    ranked = sorted(known, key=lambda i: hashlib.sha256(f"{seed}:{i}".encode()).digest())
    kept = set(ranked[:limit])
    return [i for i in known if i in kept]


def _build(run: Run, seed: int, limit: int) -> dict[str, Any]:
    shelf = Shelf()
    sampled = {part.name: run.attempt(lambda p=part: _sampled_ids(p), []) for part in run.rounds}
    tested = run.attempt(lambda: _tested_ids(run), [])
    chosen = {name: choose(ids, seed, limit) for name, ids in sampled.items()}
    wanted = choose(tested, seed, limit)
    questions = _questions(run, {*wanted, *(i for ids in chosen.values() for i in ids)})

    groups: list[dict[str, Any]] = []

    def add(key: str, label: str, total: int, read: Callable[[], list[dict[str, Any]]]) -> None:
        packed = run.attempt(read, [])
        if packed:
            told = f"{len(packed)} of {total}, chosen by seed {seed}" if len(packed) < total else ""
            groups.append({"key": key, "label": label, "told": told, "questions": packed})

    for part in run.rounds:
        ids = chosen[part.name]
        add(
            part.name,
            f"Samples of {part.name}",
            len(sampled[part.name]),
            lambda p=part, i=ids: _round(p, i, questions, shelf),
        )
    add("test", "Test, stage by stage", len(tested), lambda: _test(run, wanted, questions, shelf))
    return {"groups": groups, "passages": shelf.rows}


def _sampled_ids(part: Round) -> list[str]:
    """A round's questions, each once: those weighed, or else all that were sampled."""
    if part.weights:
        return [weights.question_id for weights in part.weights]
    return list(dict.fromkeys(i for path in part.rollouts for i, _, _ in _lines(path)))


def _tested_ids(run: Run) -> list[str]:
    """The test questions, each once, of all stages that kept their episodes."""
    paths = [evaluation_files(run.path, name)[1] for name in run.evaluated]
    return list(dict.fromkeys(i for path in paths for i, _, _ in _lines(path)))


def _questions(run: Run, wanted: Collection[str]) -> dict[str, Question]:
    path = join(run.path, "questions.jsonl")
    if not exists(path):
        if wanted:
            run.note("questions.jsonl is not there: the viewer knows questions by id only.")
        return {}
    return run.attempt(
        lambda: {
            i: parse_line(Question, line, path, number)
            for i, number, line in _lines(path)
            if i in wanted
        },
        {},
    )


def _round(
    part: Round, ids: list[str], questions: dict[str, Question], shelf: Shelf
) -> list[dict[str, Any]]:
    """The samples of each question, in their order."""
    weights = {w.question_id: w for w in part.weights}
    cards: dict[str, dict[int, dict[str, Any]]] = {i: {} for i in ids}
    for trajectory in _trajectories(part.rollouts, cards.keys()):
        i = trajectory.question_id
        found = {w.sample: w for w in weights[i].samples} if i in weights else {}
        cards[i][trajectory.sample] = pack_sample(
            trajectory, found.get(trajectory.sample), questions.get(i), shelf
        )
    return [
        pack_question(
            i,
            questions.get(i),
            [cards[i][sample] for sample in sorted(cards[i])],
            ess=round(weights[i].ess, 2) if i in weights else None,
            log_marginal=weights[i].log_marginal if i in weights else None,
            reached=weights[i].reached if i in weights else None,
        )
        for i in ids
        if cards[i]
    ]


def _test(
    run: Run, ids: list[str], questions: dict[str, Question], shelf: Shelf
) -> list[dict[str, Any]]:
    """Every stage's episode on each test question."""
    cards: dict[str, list[dict[str, Any]]] = {i: [] for i in ids}
    for stage in run.evaluated:
        judgements_path, trajectories_path = evaluation_files(run.path, stage)
        judged = {
            j.question_id: j
            for j in read_jsonl(Judgement, judgements_path)
            if j.question_id in cards
        }
        for trajectory in _trajectories([trajectories_path], cards.keys()):
            i = trajectory.question_id
            cards[i].append(pack_stage(stage, trajectory, judged.get(i), questions.get(i), shelf))
    return [pack_question(i, questions.get(i), cards[i]) for i in ids if cards[i]]


def _trajectories(paths: Iterable[str], wanted: Collection[str]) -> Iterator[Trajectory]:
    for path in paths:
        for identifier, number, line in _lines(path):
            if identifier in wanted:
                yield parse_line(Trajectory, line, path, number)


def _lines(path: str) -> Iterator[tuple[str, int, str]]:
    """(id, line number, line) of each record.

    Our own files begin every line with the id: it is read without parsing the
    rest, since trajectories are long and few are shown.
    """
    with open_text(path) as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            head = _ID_FIRST.match(line)
            yield (json.loads(head[1]) if head else _parsed_id(line, path, number)), number, line


def _parsed_id(line: str, path: str, number: int) -> str:
    """The id of a line with another order of keys, or whose record is broken."""
    model = Question if path.endswith("questions.jsonl") else Trajectory
    record = parse_line(model, line, path, number)
    return record.id if isinstance(record, Question) else record.question_id
