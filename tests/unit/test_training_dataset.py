"""What is read, what is predicted, and which examples are left out."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exsearch.config import TrainingConfig
from exsearch.errors import BadLine, InputError
from exsearch.records import Example, Role, Segment, Transcript
from exsearch.training.dataset import check_vocabulary, make_row, read_rows
from exsearch.training.job import TrainingJob

pytestmark = pytest.mark.unit

AGENT_BASE = 1000
"""In these transcripts the agent's tokens are those from here on."""


def segment(role: Role, ids: list[int]) -> Segment:
    agent = role == "assistant"
    return Segment(role=role, ids=tuple(i + AGENT_BASE * agent for i in ids), agent=agent)


transcripts = st.lists(
    st.builds(
        segment,
        st.sampled_from(["system", "user", "assistant"]),
        st.lists(st.integers(0, 99), max_size=6),
    ),
    max_size=6,
).map(lambda segments: Transcript(segments=tuple(segments)))


@given(transcript=transcripts, limit=st.integers(1, 40))
def test_only_tokens_the_agent_wrote_are_predicted(transcript: Transcript, limit: int) -> None:
    ids = transcript.token_ids[:limit]
    expected = [token for token in ids[1:] if token >= AGENT_BASE]
    row = make_row(Example(id="x", transcript=transcript), limit)
    if row is None:
        assert expected == []
        return
    assert list(row.targets) == expected
    assert list(row.ids) == ids[: len(row.ids)]
    for position, target in zip(row.positions, row.targets, strict=True):
        assert ids[position + 1] == target
    # Nothing is read past what the last prediction needs.
    assert len(row.ids) == row.positions[-1] + 1


def example(id: str, prompt: int, answer: int, weight: float = 1.0) -> Example:
    segments = (segment("user", [1] * prompt), segment("assistant", [2] * answer))
    return Example(id=id, transcript=Transcript(segments=segments), weight=weight)


def job(folder: Path, examples: list[Example], **settings: object) -> TrainingJob:
    path = folder / "examples.jsonl"
    path.write_text("".join(item.to_line() + "\n" for item in examples))
    return TrainingJob(
        model="model",
        examples=str(path),
        output=str(folder / "out"),
        max_tokens=10,
        settings=TrainingConfig.model_validate(settings),
    )


MIXED = [
    example("fits", 5, 5),
    example("one over", 5, 6),
    example("prompt over", 12, 3),
    example("no weight", 5, 3, weight=0.0),
    example("silent", 5, 0),
]


def test_overlong_examples_are_dropped_and_counted(tmp_path: Path) -> None:
    rows, counts = read_rows(job(tmp_path, MIXED, overlong="drop"))
    assert [row.id for row in rows] == ["fits"]
    assert counts.model_dump() == dict(used=1, dropped=2, cut=0, zero_weight=1, empty=1)


def test_overlong_examples_are_cut_to_their_first_tokens(tmp_path: Path) -> None:
    rows, counts = read_rows(job(tmp_path, MIXED, overlong="cut"))
    assert [(row.id, len(row.targets)) for row in rows] == [("fits", 5), ("one over", 5)]
    assert counts.model_dump() == dict(used=2, dropped=1, cut=1, zero_weight=1, empty=1)


def test_overlong_examples_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"one over has 11 tokens"):
        read_rows(job(tmp_path, MIXED, overlong="refuse"))


def test_an_overlong_example_without_weight_is_not_refused(tmp_path: Path) -> None:
    examples = [example("fits", 5, 5), example("long", 50, 5, weight=0.0)]
    rows, _ = read_rows(job(tmp_path, examples, overlong="refuse"))
    assert len(rows) == 1


def test_nothing_to_train_on_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="1 examples have weight 0"):
        read_rows(job(tmp_path, [example("no weight", 5, 3, weight=0.0)]))


def test_a_broken_line_is_named(tmp_path: Path) -> None:
    broken = job(tmp_path, [example("fits", 5, 5)])
    with open(broken.examples, "a") as file:
        file.write('{"id": "x"}\n')
    with pytest.raises(BadLine, match=r"examples\.jsonl, line 2, field 'transcript'"):
        read_rows(broken)


def test_tokens_the_model_lacks_are_refused() -> None:
    row = make_row(example("x", 3, 2), 10)
    assert row is not None
    check_vocabulary([row], AGENT_BASE + 3)
    with pytest.raises(InputError, match="example x holds token id 1002"):
        check_vocabulary([row], AGENT_BASE + 2)
