"""From shards to weights: each question by itself, wherever its samples lie."""

from __future__ import annotations

import asyncio
import json
import math
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as how_tested
from hypothesis import strategies as st
from scripted import question, setting

from exsearch.agent.chat import ChatFormat
from exsearch.agent.policies.base import Sampling
from exsearch.agent.runner import Plan, run_questions
from exsearch.config import WeighingConfig
from exsearch.em.layout import Stage
from exsearch.em.rollouts import of_shard
from exsearch.em.weighing import read_weights, score_rollouts, weigh
from exsearch.errors import InputError
from exsearch.records import (
    AnswerScore,
    Example,
    Failure,
    Provenance,
    Trajectory,
    Transcript,
    read_records,
)
from exsearch.storage import AppendLog, write_atomic

pytestmark = pytest.mark.unit

MADE_BY = Provenance(model="m", index="i", prompt="p")
QUESTIONS = [question(f"q{n}", "Ada", "Ada Lovelace") for n in range(7)]
BY_ID = {q.id: q for q in QUESTIONS}


def group(chat: ChatFormat, number: int, samples: int = 4) -> list[Trajectory]:
    """Samples of question `number`; q5 fails altogether, others in part."""
    chance = random.Random(number)
    opening = Transcript(segments=(chat.opening("Search.", f"q{number}"),))
    made = []
    for sample in range(samples):
        failed = number == 5 or chance.random() < 0.2
        scores = tuple(
            AnswerScore(alias=alias, logprob=-chance.uniform(0, 6), tokens=2)
            for alias in ("Ada", "Ada Lovelace")
        )
        made.append(
            Trajectory(
                question_id=f"q{number}",
                sample=sample,
                provenance=MADE_BY,
                transcript=opening,
                answer=None if failed else chance.choice(["Ada", "Bob"]),
                scores=() if failed else scores,
                failure=Failure(reason="malformed") if failed else None,
            )
        )
    return made


def stage_of(folder: Path, shards: list[list[Trajectory]]) -> Stage:
    stage = Stage(str(folder))
    for number, shard in enumerate(shards):
        path = stage.shard(number, len(shards))
        write_atomic(path, (f"{t.to_line()}\n" for t in shard))
    return stage


def lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines()


@how_tested(max_examples=15, deadline=None)
@given(order=st.permutations(range(7)), shards=st.integers(1, 4), chance=st.randoms())
def test_neither_sharding_nor_order_nor_company_changes_a_weight(
    chatml: ChatFormat,
    tmp_path_factory: pytest.TempPathFactory,
    order: list[int],
    shards: int,
    chance: random.Random,
) -> None:
    folder = tmp_path_factory.mktemp("weigh")
    groups = {n: group(chatml, n) for n in range(7)}
    straight = stage_of(folder / "a", [[t for n in range(7) for t in groups[n]]])
    weigh(BY_ID, straight, chatml, WeighingConfig())
    parts: list[list[Trajectory]] = [[] for _ in range(shards)]
    for place, n in enumerate(order):
        shuffled = list(groups[n])
        chance.shuffle(shuffled)
        parts[place % shards] += shuffled
    apart = stage_of(folder / "b", parts)
    weigh(BY_ID, apart, chatml, WeighingConfig())
    assert sorted(lines(straight.weights)) == sorted(lines(apart.weights))
    assert sorted(lines(straight.examples)) == sorted(lines(apart.examples))
    alone = stage_of(folder / "c", [groups[order[0]]])
    weigh(BY_ID, alone, chatml, WeighingConfig())
    assert set(lines(alone.weights)) <= set(lines(straight.weights))


def test_every_question_stays_in_the_count(chatml: ChatFormat, tmp_path: Path) -> None:
    stage = stage_of(tmp_path, [[t for n in range(7) for t in group(chatml, n)]])
    statistics = weigh(BY_ID, stage, chatml, WeighingConfig(min_answer_probability=0.5))
    weighed = read_weights(stage.weights)
    assert [w.question_id for w in weighed] == [f"q{n}" for n in range(7)]
    assert all(len(w.samples) == 4 for w in weighed)
    assert (statistics.questions, statistics.samples) == (7, 28)
    assert json.loads(Path(stage.statistics).read_text())["questions"] == 7
    hopeless = weighed[5]
    assert (hopeless.reached, hopeless.ess, hopeless.log_marginal) == (False, 0.0, None)
    assert [s.failure for s in hopeless.samples] == ["malformed"] * 4
    taught = {e.split("#")[0] for e in (json.loads(x)["id"] for x in lines(stage.examples))}
    assert taught == {w.question_id for w in weighed if w.reached}
    assert 0 < len(taught) < 6


def test_examples_of_a_question_weigh_one_in_all(chatml: ChatFormat, tmp_path: Path) -> None:
    stage = stage_of(tmp_path, [[t for n in range(7) for t in group(chatml, n)]])
    weigh(BY_ID, stage, chatml, WeighingConfig(min_answer_probability=0.0))
    sums: dict[str, float] = {}
    with Path(stage.examples).open() as file:
        for example in read_records(Example, file, stage.examples):
            name = example.id.split("#")[0]
            sums[name] = sums.get(name, 0.0) + example.weight
    assert sums.keys() == {f"q{n}" for n in range(7)} - {"q5"}
    assert all(math.isclose(total, 1.0) for total in sums.values())


def test_unscored_samples_are_refused_with_the_remedy(chatml: ChatFormat, tmp_path: Path) -> None:
    bare = [t.model_copy(update={"scores": ()}) for t in group(chatml, 0)]
    with pytest.raises(
        InputError, match=r"'q0' have no answer scores; run `exsearch weigh --score"
    ):
        weigh(BY_ID, stage_of(tmp_path, [bare]), chatml, WeighingConfig())
    assert not (tmp_path / "weights.jsonl").exists()
    assert not (tmp_path / "examples.jsonl").exists()


def test_unknown_questions_are_refused(chatml: ChatFormat, tmp_path: Path) -> None:
    stage = stage_of(tmp_path, [group(chatml, 0)])
    with pytest.raises(InputError, match="'q0', which is in none of the question files"):
        weigh({}, stage, chatml, WeighingConfig())


# --- scoring after the fact


async def rolled(chat: ChatFormat, stage: Stage, *, score: bool, shards: int = 2):
    """Roll four questions out and return the setting that did it."""
    how = setting(chat, lambda prompt, sampling: "", max_steps=2, repairs=0)

    def write(prompt, sampling: Sampling) -> str:
        over = "The search is over" in chat.decode(prompt)
        return f"answer {(sampling.seed or 0) % 3}" if over else "<FINAL>"

    how.policy.author = write  # type: ignore[attr-defined]
    plan = Plan(3, Sampling(temperature=1.0), 0, score, 4)
    for n in range(shards):
        log = AppendLog(stage.shard(n, shards))
        await run_questions(of_shard(QUESTIONS[:4], n, shards), how, plan, log)
    return how


async def test_scores_made_later_equal_those_made_at_once(
    chatml: ChatFormat, tmp_path: Path
) -> None:
    at_once, later = Stage(str(tmp_path / "a")), Stage(str(tmp_path / "b"))
    await rolled(chatml, at_once, score=True)
    how = await rolled(chatml, later, score=False)
    told: list[int] = []
    await score_rollouts(BY_ID, later, how, told.append)
    assert told == [0, 1, 2, 3, 4]
    for stage in (at_once, later):
        weigh(BY_ID, stage, chatml, WeighingConfig())
    assert lines(at_once.weights) == lines(later.weights)
    assert lines(at_once.examples) == lines(later.examples)


@how_tested(max_examples=12, deadline=None)
@given(cut=st.floats(0.0, 1.0))
async def test_scoring_cut_anywhere_goes_on_to_the_same_file(
    chatml: ChatFormat, tmp_path_factory: pytest.TempPathFactory, cut: float
) -> None:
    folder = tmp_path_factory.mktemp("scoring")
    whole, torn = Stage(str(folder / "a")), Stage(str(folder / "b"))
    for stage in (whole, torn):
        how = await rolled(chatml, stage, score=False)
    await score_rollouts(BY_ID, whole, how, lambda done: None)
    scored = (folder / "a" / "scored.jsonl").read_bytes()
    (folder / "b" / "scored.jsonl.partial").write_bytes(scored[: int(cut * len(scored))])
    await score_rollouts(BY_ID, torn, how, lambda done: None)
    assert (folder / "b" / "scored.jsonl").read_bytes() == scored


async def test_scores_of_other_rollouts_are_not_weighed(chatml: ChatFormat, tmp_path: Path) -> None:
    stage = Stage(str(tmp_path))
    how = await rolled(chatml, stage, score=False)
    await score_rollouts(BY_ID, stage, how, lambda done: None)
    shard, *_ = sorted(Path(stage.rollouts).glob("*.jsonl"))
    shard.write_bytes(b"".join(shard.read_bytes().splitlines(keepends=True)[:4]))
    with pytest.raises(InputError, match=r"scored\.jsonl was made from other rollouts"):
        weigh(BY_ID, stage, chatml, WeighingConfig())


async def test_trajectories_are_scored_together_but_not_too_many(
    chatml: ChatFormat, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = Stage(str(tmp_path))
    how = await rolled(chatml, stage, score=False)
    score, running, most = how.policy.score, 0, 0

    async def counted(*what: list[list[int]]) -> list[list[float]]:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.001)
        running -= 1
        return await score(*what)

    monkeypatch.setattr(how.policy, "score", counted)
    await score_rollouts(BY_ID, stage, how, lambda done: None, concurrency=5)
    assert most == 5


async def test_another_model_may_not_score(chatml: ChatFormat, tmp_path: Path) -> None:
    stage = Stage(str(tmp_path))
    how = await rolled(chatml, stage, score=False)
    how.policy.digest = "other"
    with pytest.raises(InputError, match=r"was sampled from model scripted, not from other"):
        await score_rollouts(BY_ID, stage, how, lambda done: None)


async def test_scoring_names_an_unknown_question(chatml: ChatFormat, tmp_path: Path) -> None:
    stage = Stage(str(tmp_path))
    how = await rolled(chatml, stage, score=False)
    with pytest.raises(InputError, match="'q0', which is in none"):
        await score_rollouts({}, stage, how, lambda done: None)
