"""Scoring other systems' answers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from exsearch.errors import InputError, StorageError
from exsearch.evaluation.predictions import score_predictions
from exsearch.evaluation.summary import summarise
from exsearch.records import Question

pytestmark = pytest.mark.unit

QUESTIONS = [
    Question(id="1", question="?", answers=("Paris",)),
    Question(id="b", question="?", answers=("yes",)),
    Question(id="c", question="?", answers=("1964",)),
]


def score(tmp_path: Path, *lines: object) -> list:
    path = tmp_path / "p.jsonl"
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    path.write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")
    return score_predictions(QUESTIONS, path)


@pytest.mark.parametrize(
    "answer",
    [
        {"answer": "paris"},
        {"pred": "Paris."},
        {"prediction": "The Paris"},
        {"output": "PARIS"},
        {"output": [{"answer": "Paris", "provenance": []}]},
        {"answer": ["Paris"], "score": 3},
    ],
)
def test_every_accepted_shape(tmp_path: Path, answer: dict) -> None:
    assert score(tmp_path, {"id": "1", **answer})[0].em == 1.0
    assert score(tmp_path, {"id": 1, **answer})[0].em == 1.0


def test_numbers_and_truth_values_are_answers(tmp_path: Path) -> None:
    judged = score(tmp_path, {"id": "b", "answer": True}, "", {"id": "c", "answer": 1964})
    assert [j.em for j in judged] == [0.0, 1.0, 1.0]


def test_missing_null_and_blank_count_as_wrong_and_are_reported(tmp_path: Path) -> None:
    judged = score(tmp_path, {"id": "c", "answer": None}, {"id": "1", "answer": " "})
    assert [j.question_id for j in judged] == ["1", "b", "c"]
    assert [j.failure for j in judged] == ["missing"] * 3
    summary = summarise(judged, name="p", bootstrap=10)
    assert (summary.em, summary.n, summary.failures) == (0.0, 3, {"missing": 3})


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ({"id": "zzz", "answer": "x"}, "line 2, field 'id': 'zzz' is not among the questions"),
        ({"id": "b", "answer": "x"}, "line 2, field 'id': 'b' was answered in line 1"),
        ({"answer": "x"}, "line 2, field 'id': missing"),
        ({"id": "c"}, "line 2, field 'answer': none of answer, pred, prediction, output"),
        ({"id": "c", "answer": {"a": 1}}, "line 2, field 'answer': is no answer but dict"),
        ({"id": "c", "answer": ["x", "y"]}, "line 2, field 'answer': holds 2 answers"),
        ("[1]", r"line 2, field '\(line\)': not a JSON object"),
        ("{", r"line 2, field '\(line\)': not JSON"),
        ("[" * 100_000, r"line 2, field '\(line\)': nested too deeply"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: object, words: str) -> None:
    with pytest.raises(InputError, match=rf"p\.jsonl, {words}"):
        score(tmp_path, {"id": "b", "answer": "no"}, line)


def test_questions_must_be_unique(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="two questions have the id '1'"):
        score_predictions([QUESTIONS[0], QUESTIONS[0]], tmp_path / "p.jsonl")


def test_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"cannot read .*nowhere\.jsonl"):
        score_predictions(QUESTIONS, tmp_path / "nowhere.jsonl")
    (tmp_path / "latin.jsonl").write_bytes(b'{"id":"1","answer":"caf\xe9"}\n')
    with pytest.raises(InputError, match="not UTF-8"):
        score_predictions(QUESTIONS, tmp_path / "latin.jsonl")
