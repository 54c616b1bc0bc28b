"""Many episodes at once: together, resumable, refused where they do not belong."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as how_tested
from hypothesis import strategies as st
from scripted import FakeRetriever, ScriptedPolicy, passages, question, setting

from exsearch.agent.chat import ChatFormat
from exsearch.agent.episode import Setting
from exsearch.agent.policies.base import Sampling
from exsearch.agent.runner import (
    Plan,
    Progress,
    episode_seed,
    greedy,
    run_questions,
    sampled,
    score_answers,
)
from exsearch.config import RunConfig, load
from exsearch.errors import InputError, PolicyError, RetrieverError, StorageError
from exsearch.records import Failure, Question, Trajectory, read_records
from exsearch.storage import AppendLog

pytestmark = pytest.mark.unit

QUESTIONS = [question(f"q{n}", "Ada", "Ada Lovelace") for n in range(6)]
PLAN = Plan(samples=3, sampling=Sampling(temperature=0.8), seed=5, score=True, concurrency=6)


def by_seed(chat: ChatFormat):
    """An author whose turns depend on the prompt and the seed alone."""

    def write(prompt: Sequence[int], how: Sampling) -> str:
        searched = chat.decode(prompt).count("<SEARCH>")
        seed = how.seed or 0
        if searched == 0:
            return f"<QUERY> thing {seed % 7}"
        if "The search is over" in chat.decode(prompt):
            return f"answer {seed % 5}"
        return ["<FINAL>", "<FACT> so\n<QUERY> more", "garbage"][seed % 3]

    return write


@pytest.fixture
def how(chatml: ChatFormat) -> Setting:
    return setting(chatml, by_seed(chatml), max_steps=3, repairs=0)


def policy_of(how: Setting) -> ScriptedPolicy:
    assert isinstance(how.policy, ScriptedPolicy)
    return how.policy


async def rolled(
    how: Setting, path: Path, questions: Sequence[Question] = QUESTIONS, plan: Plan = PLAN
) -> Progress:
    return await run_questions(questions, how, plan, AppendLog(str(path)))


def read(path: Path) -> list[Trajectory]:
    return list(read_records(Trajectory, path.read_text().splitlines(), str(path)))


async def test_all_samples_of_a_question_stand_together_in_order(
    how: Setting, tmp_path: Path
) -> None:
    progress = await rolled(how, tmp_path / "shard.jsonl")
    made = read(tmp_path / "shard.jsonl")
    assert [t.key for t in made] == [f"q{q}#{k}" for q in range(6) for k in range(3)]
    assert (progress.done, progress.episodes) == (6, 18)
    failed = [t for t in made if t.failure]
    assert sum(progress.failures.values()) == len(failed) > 0
    assert len({t.answer for t in made}) > 2
    assert len({t.provenance for t in made}) == 1
    assert not (tmp_path / "shard.jsonl.partial").exists()


async def test_scores_stand_beside_every_answer(how: Setting, tmp_path: Path) -> None:
    await rolled(how, tmp_path / "scored.jsonl")
    await rolled(how, tmp_path / "bare.jsonl", plan=replace(PLAN, score=False))
    scored, bare = read(tmp_path / "scored.jsonl"), read(tmp_path / "bare.jsonl")
    for with_scores, without in zip(scored, bare, strict=True):
        assert [s.alias for s in with_scores.scores] == ["Ada", "Ada Lovelace"]
        assert all(s.logprob <= 0 and s.tokens > 0 for s in with_scores.scores)
        assert without == with_scores.model_copy(update={"scores": ()})


async def test_the_file_does_not_depend_on_who_was_first(how: Setting, tmp_path: Path) -> None:
    await rolled(how, tmp_path / "even.jsonl")
    policy_of(how).pause = lambda sampling: ((sampling.seed or 0) % 11) / 2000
    await rolled(how, tmp_path / "uneven.jsonl", plan=replace(PLAN, concurrency=18))
    await rolled(how, tmp_path / "alone.jsonl", plan=replace(PLAN, concurrency=1))
    texts = {(tmp_path / f"{name}.jsonl").read_text() for name in ("even", "uneven", "alone")}
    assert len(texts) == 1


@how_tested(max_examples=15, deadline=None)
@given(cut=st.floats(0.0, 1.0))
def test_a_log_cut_anywhere_goes_on_to_the_same_file(
    chatml: ChatFormat, tmp_path_factory: pytest.TempPathFactory, cut: float
) -> None:
    folder = tmp_path_factory.mktemp("cut")
    how = setting(chatml, by_seed(chatml), max_steps=3, repairs=0)
    asyncio.run(rolled(how, folder / "whole.jsonl"))
    whole = (folder / "whole.jsonl").read_bytes()
    (folder / "cut.jsonl.partial").write_bytes(whole[: int(cut * len(whole))])
    before = len(policy_of(how).prompts)
    progress = asyncio.run(rolled(how, folder / "cut.jsonl"))
    assert (folder / "cut.jsonl").read_bytes() == whole
    complete = whole[: int(cut * len(whole))].count(b"\n") // PLAN.samples
    assert progress.resumed == complete
    assert (len(policy_of(how).prompts) == before) == (complete == len(QUESTIONS))


async def test_a_question_cut_twice_is_sampled_again(how: Setting, tmp_path: Path) -> None:
    await rolled(how, tmp_path / "whole.jsonl")
    lines = (tmp_path / "whole.jsonl").read_text().splitlines(True)
    torn = [*lines[:2], *lines[:1], *lines[:3], *lines[3:4], *lines[3:6]]
    (tmp_path / "torn.jsonl.partial").write_text("".join(torn))
    progress = await rolled(how, tmp_path / "torn.jsonl")
    assert progress.resumed == 2
    assert (tmp_path / "torn.jsonl").read_text() == "".join(lines)


async def test_a_finished_file_is_left_alone(how: Setting, tmp_path: Path) -> None:
    await rolled(how, tmp_path / "x.jsonl")
    before = (tmp_path / "x.jsonl").stat().st_mtime_ns
    turns = len(policy_of(how).prompts)
    progress = await rolled(how, tmp_path / "x.jsonl")
    assert (tmp_path / "x.jsonl").stat().st_mtime_ns == before
    assert len(policy_of(how).prompts) == turns
    assert progress.resumed == 6


@pytest.mark.parametrize("finished", [True, False])
@pytest.mark.parametrize("what", ["model", "index", "prompt"])
async def test_trajectories_of_another_origin_are_refused(
    how: Setting, tmp_path: Path, what: str, finished: bool
) -> None:
    path = tmp_path / "x.jsonl"
    await rolled(how, path)
    if not finished:
        path.rename(f"{path}.partial")
    other = {
        "model": replace(how, policy=replace(policy_of(how), digest="other")),
        "index": replace(how, retriever=FakeRetriever(passages(), digest="other")),
        "prompt": replace(how, agent=how.agent.model_copy(update={"instruction": "Other."})),
    }[what]
    with pytest.raises(InputError, match="another model, index or prompt"):
        await rolled(other, path)


@pytest.mark.parametrize("finished", [True, False])
async def test_a_log_of_other_questions_is_refused_before_any_work(
    how: Setting, tmp_path: Path, finished: bool
) -> None:
    path = tmp_path / "x.jsonl"
    await rolled(how, path)
    if not finished:
        path.rename(f"{path}.partial")
    turns = len(policy_of(how).prompts)
    with pytest.raises(InputError, match="holds question 'q0'"):
        await rolled(how, path, QUESTIONS[1:])
    assert len(policy_of(how).prompts) == turns


async def test_a_finished_file_that_lacks_questions_is_refused(
    how: Setting, tmp_path: Path
) -> None:
    await rolled(how, tmp_path / "x.jsonl", QUESTIONS[:4])
    with pytest.raises(InputError, match="lacks question 'q4'"):
        await rolled(how, tmp_path / "x.jsonl")
    with pytest.raises(InputError, match="another number of samples"):
        await rolled(how, tmp_path / "x.jsonl", QUESTIONS[:4], replace(PLAN, samples=2))


async def test_two_questions_with_one_id_are_refused(how: Setting, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="two questions have the id 'q1'"):
        await rolled(how, tmp_path / "x.jsonl", [*QUESTIONS, QUESTIONS[1]])


async def test_a_dead_engine_is_told_and_nothing_is_lost(how: Setting, tmp_path: Path) -> None:
    await rolled(how, tmp_path / "whole.jsonl")
    dying = replace(policy_of(how), dies_after=25, prompts=[])
    with pytest.raises(PolicyError, match="the engine is gone"):
        await rolled(replace(how, policy=dying), tmp_path / "x.jsonl")
    kept = (tmp_path / "x.jsonl.partial").read_text()
    assert kept.count("\n") >= PLAN.samples
    assert kept.count("\n") % PLAN.samples == 0
    assert not (tmp_path / "x.jsonl").exists()
    await rolled(how, tmp_path / "x.jsonl")
    assert (tmp_path / "x.jsonl").read_text() == (tmp_path / "whole.jsonl").read_text()


async def test_nothing_runs_on_after_the_engine_died(how: Setting, tmp_path: Path) -> None:
    dying = replace(policy_of(how), dies_after=3, prompts=[], pause=lambda s: 0.01)
    before = asyncio.all_tasks()
    with pytest.raises(PolicyError):
        await rolled(replace(how, policy=dying), tmp_path / "x.jsonl")
    assert asyncio.all_tasks() == before


async def test_a_full_disk_is_told_and_nothing_is_lost(
    how: Setting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = AppendLog(str(tmp_path / "x.jsonl"))
    real, left = log.append, [2]

    def append(*lines: str) -> None:
        if not left[0]:
            raise StorageError("disk full")
        left[0] -= 1
        real(*lines)

    monkeypatch.setattr(log, "append", append)
    with pytest.raises(StorageError, match="disk full"):
        await run_questions(QUESTIONS, how, PLAN, log)
    log.close()
    assert (tmp_path / "x.jsonl.partial").read_text().count("\n") == 2 * PLAN.samples


async def test_a_retriever_that_dies_is_counted_and_the_run_ends(
    how: Setting, tmp_path: Path
) -> None:
    calls = [0]

    def answer(query: str, k: int):
        calls[0] += 1
        if calls[0] > 5:
            raise RetrieverError("it answered 500, 5 times")
        return passages(k)

    broken = replace(how, retriever=FakeRetriever(answer=answer))
    progress = await rolled(broken, tmp_path / "x.jsonl")
    assert progress.failures["retriever"] >= 10
    assert "retriever" in progress.line()
    made = read(tmp_path / "x.jsonl")
    assert len(made) == 18
    lost = [t for t in made if t.failure and t.failure.reason == "retriever"]
    assert all(t.scores == () for t in lost)


async def test_no_more_episodes_fly_than_allowed(how: Setting, tmp_path: Path) -> None:
    policy = policy_of(how)
    flying, most = [0], [0]
    inner = policy.generate

    async def generate(prompts, sampling):
        flying[0] += 1
        most[0] = max(most[0], flying[0])
        await asyncio.sleep(0.001)
        done = await inner(prompts, sampling)
        flying[0] -= 1
        return done

    policy.generate = generate  # type: ignore[method-assign]
    await rolled(how, tmp_path / "x.jsonl")
    assert most[0] <= PLAN.concurrency
    assert most[0] > PLAN.samples


async def test_progress_is_told_after_each_question(how: Setting, tmp_path: Path) -> None:
    seen: list[int] = []
    log = AppendLog(str(tmp_path / "x.jsonl"))
    await run_questions(QUESTIONS, how, PLAN, log, lambda p: seen.append(p.done))
    assert seen == [1, 2, 3, 4, 5, 6]


@given(st.text(max_size=9), st.integers(0, 99), st.integers(0, 9))
def test_seeds_depend_on_run_question_and_sample(name: str, seed: int, sample: int) -> None:
    here = episode_seed(seed, name, sample)
    assert 0 <= here < 2**31
    assert here == episode_seed(seed, name, sample)
    others = {episode_seed(seed + 1, name, sample), episode_seed(seed, name, sample + 1)}
    assert here not in others


async def test_what_has_no_place_for_an_answer_has_no_scores(how: Setting, tmp_path: Path) -> None:
    await rolled(how, tmp_path / "x.jsonl")
    done = read(tmp_path / "x.jsonl")[0].model_copy(update={"scores": (), "failure": None})
    asked = QUESTIONS[0]
    assert len(await score_answers(asked, done, how)) == 2
    for reason, expected in (
        ("malformed", 2),
        ("empty_answer", 2),
        ("retriever", 0),
        ("too_long", 0),
    ):
        failed = done.model_copy(update={"failure": Failure(reason=reason)})
        assert len(await score_answers(asked, failed, how)) == expected
    assert done.transcript is not None
    policy_of(how).max_tokens = len(done.transcript.token_ids) + 3
    assert await score_answers(asked, done, how) == ()


def test_plans_follow_the_settings() -> None:
    run: RunConfig = load(None, ["seed=4", "sampling.samples=7", "sampling.top_k=9"])
    e_step = sampled(run, 2)
    assert (e_step.samples, e_step.sampling.top_k, e_step.score) == (7, 9, True)
    assert e_step.seed != sampled(run, 1).seed
    measured = greedy(run)
    assert (measured.samples, measured.sampling.temperature) == (1, 0.0)


def test_a_shard_is_plain_json(tmp_path: Path, how: Setting) -> None:
    asyncio.run(rolled(how, tmp_path / "x.jsonl"))
    for line in (tmp_path / "x.jsonl").read_text().splitlines():
        assert json.loads(line)["provenance"].keys() == {"model", "index", "prompt"}


async def test_a_model_that_has_diverged_is_named(
    how: Setting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def score(prompts: object, targets: list[list[int]]) -> list[list[float]]:
        return [[float("nan")] * len(target) for target in targets]

    monkeypatch.setattr(how.policy, "score", score)
    with pytest.raises(PolicyError, match="diverged"):
        await run_questions(QUESTIONS, how, PLAN, AppendLog(str(tmp_path / "x.jsonl")))
