"""What the loop is made of: which questions when, where files lie, one engine at a time."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripted import ScriptedPolicy, in_order, question

from exsearch.agent.chat import ChatFormat
from exsearch.config import DataConfig, load
from exsearch.em import engine as engines
from exsearch.em.engine import Engine
from exsearch.em.layout import RunFolder, iteration_name
from exsearch.em.mstep import mix_in_warmup, train
from exsearch.em.questions import load_questions, of_round, some
from exsearch.errors import InputError
from exsearch.records import Example, Segment, Transcript, read_records
from exsearch.storage import write_atomic

pytestmark = pytest.mark.unit

QUESTIONS = [question(f"q{n}") for n in range(10)]


# --- questions


@given(st.integers(1, 14), st.integers(0, 5))
def test_some_questions_are_a_seeded_choice_in_their_own_order(limit: int, seed: int) -> None:
    chosen = some(QUESTIONS, limit, seed)
    assert len(chosen) == min(limit, 10)
    assert chosen == [q for q in QUESTIONS if q in chosen]
    assert chosen == some(QUESTIONS, limit, seed)
    assert some(QUESTIONS, None, seed) == QUESTIONS


@given(st.integers(1, 5), st.integers(0, 5))
def test_each_round_takes_fresh_questions_until_there_are_none(limit: int, seed: int) -> None:
    rounds = [of_round(QUESTIONS, limit, number, seed) for number in range(1, 10 // limit + 1)]
    seen = [q.id for part in rounds for q in part]
    assert len(set(seen)) == len(seen) == limit * (10 // limit)
    assert all(len(of_round(QUESTIONS, limit, n, seed)) == limit for n in range(1, 30))
    for n in range(1, 30):
        ids = [q.id for q in of_round(QUESTIONS, limit, n, seed)]
        assert len(set(ids)) == len(ids)


def test_questions_of_several_files_may_share_no_id(tmp_path: Path) -> None:
    for name, ids in (("a", "12"), ("b", "23")):
        lines = [question(i).to_line() + "\n" for i in ids]
        write_atomic(tmp_path / name, lines)
    files = [str(tmp_path / "a")]
    assert [q.id for q in load_questions(files, DataConfig(), "train", print)] == ["1", "2"]
    with pytest.raises(InputError, match=r"question id '2' occurs twice in train"):
        load_questions([*files, str(tmp_path / "b")], DataConfig(), "train", print)
    with pytest.raises(InputError, match=r"data\.dev names no question file"):
        load_questions([], DataConfig(), "dev", print)


def test_what_is_skipped_is_told(tmp_path: Path) -> None:
    write_atomic(tmp_path / "a", [question("1").to_line(), '\n{"id": "2", "question": "x"}\n'])
    told: list[str] = []
    read = load_questions([str(tmp_path / "a")], DataConfig(skip_bad=True), "train", told.append)
    assert [q.id for q in read] == ["1"]
    assert "skipped 1 bad record" in told[0]


# --- the run folder


def test_a_round_starts_from_the_newest_model_before_it(tmp_path: Path) -> None:
    run = RunFolder(str(tmp_path))
    assert iteration_name(1) == "iter-01"
    assert run.model_before(1, "base") == "base"
    Path(run.stage("warmup").checkpoint).mkdir(parents=True)
    assert run.model_before(3, "base") == run.stage("warmup").checkpoint
    Path(run.iteration(1).checkpoint).mkdir(parents=True)
    Path(run.iteration(3).checkpoint).mkdir(parents=True)
    assert run.model_before(1, "base") == run.stage("warmup").checkpoint
    assert run.model_before(2, "base") == run.iteration(1).checkpoint
    assert run.model_before(3, "base") == run.iteration(1).checkpoint


def test_shards_have_names_that_sort() -> None:
    stage = RunFolder("s3://bucket/run").iteration(2)
    assert stage.shard(3, 12) == "s3://bucket/run/iter-02/rollouts/shard-003-of-012.jsonl"


# --- the engine


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch, chatml: ChatFormat) -> list[str]:
    """Names of the models that an engine was started on."""
    started: list[str] = []

    async def open_policy(config: object, model: str) -> ScriptedPolicy:
        started.append(model)
        return ScriptedPolicy(chatml, in_order(), digest=model)

    monkeypatch.setattr(engines, "open_policy", open_policy)
    monkeypatch.setattr(engines, "model_digest", lambda model: model)
    return started


async def test_later_models_are_loaded_into_the_engine(opened: list[str]) -> None:
    engine = Engine(load(None), lambda text: None)
    first = await engine.use("a")
    assert await engine.use("a") is first
    assert await engine.use("b") is first
    assert (first.digest, opened) == ("b", ["a"])
    await engine.release()
    await engine.release()


async def test_an_engine_that_was_released_starts_anew(opened: list[str]) -> None:
    engine = Engine(load(), lambda text: None)
    await engine.use("a")
    await engine.release()
    await engine.use("b")
    assert opened == ["a", "b"]


# --- the M-step's examples


def example(name: str) -> str:
    segment = Segment(role="assistant", ids=(1,), agent=True)
    return Example(id=name, transcript=Transcript(segments=(segment,))).to_line() + "\n"


def test_warmup_examples_are_mixed_in_by_share(tmp_path: Path) -> None:
    run = RunFolder(str(tmp_path))
    stage, warmup = run.iteration(1), run.stage("warmup")
    write_atomic(warmup.examples, [example(f"w{n}") for n in range(5)])

    def mixed(share: float) -> list[str]:
        write_atomic(stage.examples, [example(f"e{n}") for n in range(4)])
        mix_in_warmup(stage, warmup, share, 3)
        with Path(stage.examples).open() as lines:
            return [e.id for e in read_records(Example, lines, "x")]

    assert mixed(0.5) == mixed(0.5)
    assert len(mixed(0.5)) == 6
    assert mixed(0.5)[:4] == ["e0", "e1", "e2", "e3"]
    assert len(set(mixed(2.0))) == 9


def test_nothing_to_learn_is_an_error_with_remedies(tmp_path: Path) -> None:
    stage = RunFolder(str(tmp_path)).iteration(1)
    write_atomic(stage.examples, "\n")
    run = load()
    with pytest.raises(InputError, match=r"no question was reached.*min_answer_probability"):
        train(run, run.align, "model", stage)
