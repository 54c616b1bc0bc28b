"""Shards: every question in exactly one, read back whole or refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripted import question

from exsearch.em.rollouts import of_shard, parse_shard, read_groups, shard_files
from exsearch.errors import BadLine, InputError
from exsearch.records import Provenance, Trajectory

pytestmark = pytest.mark.unit

MADE_BY = Provenance(model="m", index="i", prompt="p")


def lines(*keys: str) -> str:
    """Trajectories named `question#sample`."""
    made = ""
    for key in keys:
        name, _, sample = key.partition("#")
        record = Trajectory(question_id=name, sample=int(sample), provenance=MADE_BY)
        made += record.to_line() + "\n"
    return made


@given(st.integers(0, 40), st.integers(1, 9))
def test_shards_share_the_questions_out(count: int, shards: int) -> None:
    questions = [question(f"q{n}") for n in range(count)]
    parts = [of_shard(questions, n, shards) for n in range(shards)]
    assert sorted(q.id for part in parts for q in part) == sorted(q.id for q in questions)
    sizes = [len(part) for part in parts]
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize(("text", "shard"), [("0/1", (0, 1)), ("3/4", (3, 4)), ("11/12", (11, 12))])
def test_shards_are_named_from_zero(text: str, shard: tuple[int, int]) -> None:
    assert parse_shard(text) == shard


@pytest.mark.parametrize("text", ["", "1", "1/1", "4/4", "-1/4", "1/0", "a/b", "0/4 ", "0.5/2"])
def test_shards_that_are_none(text: str) -> None:
    with pytest.raises(InputError, match="i/n with 0 <= i < n"):
        parse_shard(text)


def test_finished_shards_are_found_in_order(tmp_path: Path) -> None:
    for n in (2, 0, 1):
        (tmp_path / f"shard-{n:03d}-of-003.jsonl").touch()
    (tmp_path / "notes.txt").touch()
    assert [Path(p).name for p in shard_files(str(tmp_path))] == [
        f"shard-{n:03d}-of-003.jsonl" for n in range(3)
    ]


@pytest.mark.parametrize(
    ("names", "why"),
    [
        ([], "no finished rollout shard"),
        (["shard-000-of-002.jsonl.partial"], "no finished rollout shard"),
        (["shard-000-of-003.jsonl", "shard-002-of-003.jsonl"], r"lacks shards \[1\]"),
        (["shard-000-of-001.jsonl", "shard-001-of-002.jsonl"], r"mixes shards of \[1, 2\]"),
    ],
)
def test_shards_that_do_not_make_a_whole(tmp_path: Path, names: list[str], why: str) -> None:
    for name in names:
        (tmp_path / name).touch()
    with pytest.raises(InputError, match=why):
        shard_files(str(tmp_path))


def test_a_folder_that_is_not_there_has_no_shards(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="run `exsearch rollout` first"):
        shard_files(str(tmp_path / "none"))


def test_groups_come_whole_and_sorted(tmp_path: Path) -> None:
    file = tmp_path / "shard.jsonl"
    file.write_text(lines("a#1", "a#0", "b#0"))
    other = tmp_path / "other.jsonl"
    other.write_text(lines("c#0", "c#1"))
    groups = list(read_groups([str(file), str(other)]))
    assert [[t.key for t in group] for group in groups] == [["a#0", "a#1"], ["b#0"], ["c#0", "c#1"]]


@pytest.mark.parametrize(
    "keys",
    [("a#0", "a#2"), ("a#1",), ("a#0", "a#0"), ("a#0", "b#0", "a#1")],
    ids=["gap", "no first", "twice", "apart"],
)
def test_groups_that_are_not_whole_are_refused(tmp_path: Path, keys: tuple[str, ...]) -> None:
    file = tmp_path / "shard.jsonl"
    file.write_text(lines(*keys))
    with pytest.raises(InputError, match="samples of question 'a' are not together"):
        list(read_groups([str(file)]))


def test_a_question_in_two_shards_is_refused(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).write_text(lines("a#0"))
    with pytest.raises(InputError, match="question 'a'"):
        list(read_groups([str(tmp_path / "one"), str(tmp_path / "two")]))


def test_a_damaged_shard_names_its_line(tmp_path: Path) -> None:
    file = tmp_path / "shard.jsonl"
    file.write_text(lines("a#0") + '{"question_id": "b"\n')
    with pytest.raises(BadLine, match=r"shard\.jsonl, line 2"):
        list(read_groups([str(file)]))
