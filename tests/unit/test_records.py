"""Records survive the file and refuse what they do not know."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from exsearch.errors import BadLine
from exsearch.records import (
    AnswerScore,
    Failure,
    Passage,
    Provenance,
    Question,
    Segment,
    Step,
    Trajectory,
    Transcript,
    canonical_json,
    parse_line,
    read_records,
)

pytestmark = pytest.mark.unit

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
ids = st.lists(st.integers(0, 50_000), max_size=6).map(tuple)
segment = st.builds(
    Segment, role=st.sampled_from(["system", "user", "assistant"]), ids=ids, agent=st.booleans()
)
transcript = st.builds(Transcript, segments=st.lists(segment, max_size=4).map(tuple))
passage = st.builds(
    Passage, pid=text, title=text, text=text, score=st.none() | st.floats(-1e3, 1e3)
)
step = st.builds(
    Step,
    query=text,
    passages=st.lists(passage, max_size=2).map(tuple),
    kept=st.lists(st.integers(1, 9), max_size=2).map(tuple),
    evidence=st.none() | text,
    selection=st.none() | transcript,
)
score = st.builds(AnswerScore, alias=text, logprob=st.floats(-1e4, 0), tokens=st.integers(1, 9))
trajectory = st.builds(
    Trajectory,
    question_id=text,
    sample=st.integers(0, 9),
    provenance=st.builds(Provenance, model=text, index=text, prompt=text),
    steps=st.lists(step, max_size=2).map(tuple),
    answer=st.none() | text,
    transcript=st.none() | transcript,
    answer_ids=ids,
    scores=st.lists(score, max_size=2).map(tuple),
    forced=st.booleans(),
    repairs=st.integers(0, 3),
    exact=st.booleans(),
    failure=st.none() | st.builds(Failure, reason=text, detail=text),
)


@given(trajectory)
def test_a_trajectory_is_read_back_as_it_was_written(made: Trajectory) -> None:
    line = made.to_line()
    assert "\n" not in line
    read = parse_line(Trajectory, line, "file", 1)
    assert read == made
    assert read.to_line() == line


@given(transcript)
def test_the_mask_is_as_long_as_the_ids_and_true_for_the_agent_alone(made: Transcript) -> None:
    assert len(made.token_ids) == len(made.loss_mask)
    assert sum(made.loss_mask) == sum(len(s.ids) for s in made.segments if s.agent)


def test_a_bad_line_names_file_line_and_field() -> None:
    lines = ['{"id": "1", "question": "q", "answers": ["a"]}', "", '{"id": "2", "question": ""}']
    with pytest.raises(BadLine, match=r"dev\.jsonl, line 3, field 'question'"):
        list(read_records(Question, lines, "dev.jsonl"))


@pytest.mark.parametrize("line", ["{", "[]", "null", '{"id": 3', '"\\ud800"'])
def test_lines_that_are_no_record(line: str) -> None:
    with pytest.raises(BadLine, match="line 7"):
        parse_line(Question, line, "file", 7)


def test_unknown_fields_are_refused_and_records_do_not_change() -> None:
    with pytest.raises(BadLine, match="surprise"):
        parse_line(Passage, '{"pid":"1","title":"","text":"","surprise":1}', "file", 1)
    made = Passage(pid="1", title="", text="")
    with pytest.raises(ValidationError):
        made.text = "other"  # type: ignore[misc]


def test_a_question_needs_an_answer() -> None:
    with pytest.raises(ValidationError):
        Question(id="1", question="q", answers=())


def test_defaults_are_left_out_of_lines() -> None:
    assert json.loads(Passage(pid="1", title="t", text="x").to_line()) == {
        "pid": "1",
        "title": "t",
        "text": "x",
    }


@given(st.dictionaries(text, st.integers(), max_size=4))
def test_canonical_json_does_not_depend_on_order(value: dict[str, int]) -> None:
    turned = dict(reversed(value.items()))
    assert canonical_json(value) == canonical_json(turned)
    assert json.loads(canonical_json(value)) == value
