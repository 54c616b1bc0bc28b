"""The second half of the E-step: rollout shards become weights and examples."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence

from exsearch.agent.chat import ChatFormat
from exsearch.agent.episode import Setting
from exsearch.agent.runner import first_of, score_answers
from exsearch.config import WeighingConfig
from exsearch.em.examples import question_examples
from exsearch.em.layout import Stage
from exsearch.em.rollouts import read_groups, shard_files
from exsearch.em.statistics import EStepStatistics, summarise
from exsearch.em.weights import weigh_question
from exsearch.errors import InputError
from exsearch.evaluation.metrics import exact_match
from exsearch.records import Question, QuestionWeights, Trajectory, read_records
from exsearch.storage import (
    AppendLog,
    digest_file,
    exists,
    join,
    open_text,
    read_json,
    write_atomic,
    write_json,
)

SCORED = "scored.jsonl"
"""Rollouts scored after the fact, beside the shards."""

SCORED_FROM = "scored-from.json"
"""Digests of the shards they were made from."""


def weigh(
    questions: Mapping[str, Question],
    stage: Stage,
    chat: ChatFormat,
    config: WeighingConfig,
    seed: int = 0,
) -> EStepStatistics:
    """Write `weights.jsonl`, `examples.jsonl` and `estep.json` from scored rollouts.

    Args:
        questions: by id; every question in the shards must be among them.
        chat: of the model that sampled, to write the gold answer's turn.

    Raises:
        InputError: shards are missing or unscored, or name an unknown question.
    """
    weights: list[QuestionWeights] = []
    inexact = 0

    def examples() -> Iterator[str]:
        nonlocal inexact
        for group in read_groups(scored_files(stage)):
            question = _question_of(group, questions)
            correct = [bool(exact_match(t.answer, question.answers)) for t in group]
            _require_scores(group)
            weighed = weigh_question(question, group, correct, config)
            weights.append(weighed)
            inexact += sum(not t.exact for t in group)
            by_sample = {t.sample: t for t in group}
            for example in question_examples(question, weighed, by_sample, chat, config):
                yield f"{example.to_line()}\n"

    write_atomic(stage.examples, examples())
    statistics = summarise(weights, questions, inexact, seed)
    write_atomic(stage.weights, (f"{w.to_line()}\n" for w in weights))
    write_json(stage.statistics, statistics.model_dump(mode="json"))
    return statistics


def scored_files(stage: Stage) -> list[str]:
    """The files to weigh: the shards, or the one that scoring them again made."""
    rescored = join(stage.folder, SCORED)
    if not exists(rescored):
        return shard_files(stage.rollouts)
    made_of = join(stage.folder, SCORED_FROM)
    if not exists(made_of) or read_json(made_of) != _digests(stage):
        raise InputError(
            f"{rescored} was made from other rollouts than those in {stage.rollouts}; remove it, "
            "and run `exsearch weigh --score` if their answers are to be scored again"
        )
    return [rescored]


def _digests(stage: Stage) -> list[str]:
    return [digest_file(path) for path in shard_files(stage.rollouts)]


def _question_of(group: Sequence[Trajectory], questions: Mapping[str, Question]) -> Question:
    name = group[0].question_id
    if name not in questions:
        raise InputError(
            f"the rollouts hold question {name!r}, which is in none of the question files; "
            "weigh with the files that were sampled from"
        )
    return questions[name]


def _require_scores(group: Sequence[Trajectory]) -> None:
    unscored = [t.sample for t in group if not t.scores and t.failure is None]
    if unscored:
        raise InputError(
            f"samples {unscored} of question {group[0].question_id!r} have no answer scores; "
            "run `exsearch weigh --score` with the model that sampled them"
        )


async def score_rollouts(
    questions: Mapping[str, Question],
    stage: Stage,
    setting: Setting,
    watch: Callable[[int], None],
    concurrency: int = 64,
) -> None:
    """Score every trajectory again, by the very model that sampled it; resumable.

    Args:
        watch: called with the number of questions done.
        concurrency: trajectories scored at a time.

    Raises:
        InputError: the policy holds another model than the one that sampled.
    """
    log = AppendLog(join(stage.folder, SCORED))
    if log.finished:
        return
    done: dict[str, list[str]] = {}
    for trajectory in read_records(Trajectory, log.lines(), log.path):
        done.setdefault(trajectory.question_id, []).append(trajectory.to_line())
    groups = {g[0].question_id: g for g in read_groups(shard_files(stage.rollouts))}
    left = [n for n, group in groups.items() if len(done.get(n, ())) != len(group)]
    watch(len(groups) - len(left))
    room = asyncio.Semaphore(concurrency)

    async def one(question: Question, group: Sequence[Trajectory]) -> None:
        async with asyncio.TaskGroup() as tasks:
            scoring = [tasks.create_task(_scored(question, t, setting, room)) for t in group]
        lines = [task.result() for task in scoring]
        log.append(*lines)
        done[question.id] = lines
        left.remove(question.id)
        watch(len(groups) - len(left))

    try:
        async with asyncio.TaskGroup() as tasks:
            for name in list(left):
                tasks.create_task(one(_question_of(groups[name], questions), groups[name]))
    except BaseExceptionGroup as several:
        raise first_of(several) from several
    write_json(join(stage.folder, SCORED_FROM), _digests(stage))
    log.finish(line for name in groups for line in done[name])


async def _scored(
    question: Question, trajectory: Trajectory, setting: Setting, room: asyncio.Semaphore
) -> str:
    if trajectory.provenance.model != setting.policy.digest:
        raise InputError(
            f"trajectory {trajectory.key} was sampled from model "
            f"{trajectory.provenance.model}, not from {setting.policy.digest}: "
            "the posterior needs the likelihood under the model that sampled"
        )
    async with room:
        scores = await score_answers(question, trajectory, setting)
    return trajectory.model_copy(update={"scores": scores}).to_line()


def read_weights(path: str) -> list[QuestionWeights]:
    with open_text(path) as lines:
        return list(read_records(QuestionWeights, lines, path))
