"""Many episodes at once: the engine's batch always full, every question safe on disk.

The E-step's rollouts and the evaluation of a model are the same thing with other
settings: K samples at some temperature, or one greedy one. Episodes run as
asyncio tasks, bounded by `concurrency`; a question's K trajectories are appended
to the shard together, so a killed run loses at most the questions in flight.
"""

from __future__ import annotations

import asyncio
import copy
import hashlib
import math
import time
from collections import Counter
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass, field

from exsearch.agent.episode import EpisodeResult, Setting, run_episode
from exsearch.agent.policies.base import PolicyStats, Sampling
from exsearch.config import RunConfig
from exsearch.errors import InputError, PolicyError
from exsearch.records import (
    AnswerScore,
    Passage,
    Provenance,
    Question,
    Trajectory,
    canonical_json,
    parse_line,
)
from exsearch.retrieval.retriever import Retriever
from exsearch.storage import AppendLog, digest_bytes


@dataclass(frozen=True)
class Plan:
    """What to sample.

    Attributes:
        samples: K, episodes per question.
        sampling: for every turn; the seed is replaced per episode.
        seed: the run's seed, from which each episode's is derived.
        score: also measure log p(gold alias | trajectory) while the prefix is hot.
        concurrency: episodes in flight.
    """

    samples: int
    sampling: Sampling
    seed: int
    score: bool
    concurrency: int


@dataclass
class Progress:
    """Running totals for the live line."""

    questions: int
    started: float = field(default_factory=time.monotonic)
    done: int = 0
    resumed: int = 0
    episodes: int = 0
    inexact: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    searches: int = 0
    search_seconds: float = 0.0
    policy: PolicyStats = field(default_factory=PolicyStats)

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.started

    def line(self) -> str:
        """One line for a person: questions/s, written tokens/s, share of prompt tokens that the
        prefix cache had, mean latency of a search, failures by reason."""
        seconds = max(self.seconds, 1e-9)
        latency = 1000 * self.search_seconds / self.searches if self.searches else 0.0
        reasons = ", ".join(f"{n} {why}" for why, n in self.failures.most_common())
        return (
            f"{(self.done - self.resumed) / seconds:.2f} q/s · "
            f"{self.policy.output_tokens / seconds:.0f} tok/s · "
            f"cached {self.policy.hit_rate:.0%} · search {latency:.0f} ms · "
            f"failed {reasons or 0}"
        )


class _TimedRetriever:
    """A retriever that notes how long its answers take."""

    def __init__(self, inner: Retriever, progress: Progress) -> None:
        self._inner, self._progress = inner, progress
        self.digest = inner.digest

    async def search(self, queries: list[str], k: int) -> list[list[Passage]]:
        started = time.monotonic()
        found = await self._inner.search(queries, k)
        self._progress.searches += 1
        self._progress.search_seconds += time.monotonic() - started
        return found

    async def close(self) -> None:
        await self._inner.close()


def provenance(setting: Setting) -> Provenance:
    """Digests of the model, the index and everything that shapes the prompt."""
    prompt = digest_bytes(
        setting.policy.chat.digest.encode(),
        canonical_json(setting.agent.model_dump(mode="json")).encode(),
    )
    return Provenance(model=setting.policy.digest, index=setting.retriever.digest, prompt=prompt)


def episode_seed(seed: int, question_id: str, sample: int) -> int:
    """A seed that depends on nothing but the run, the question and the sample."""
    digest = hashlib.sha256(f"{seed}/{question_id}/{sample}".encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1


async def run_questions(
    questions: Sequence[Question],
    setting: Setting,
    plan: Plan,
    log: AppendLog,
    watch: Callable[[Progress], None] | None = None,
) -> Progress:
    """Sample every question's episodes into `log` and finish it, in the questions' order.

    Raises:
        InputError: the log holds trajectories made with other settings or of other
            questions, or two questions share an id.
        PolicyError: the engine is gone; what was appended stays, run again to go on.
    """
    order = {question.id: place for place, question in enumerate(questions)}
    if len(order) != len(questions):
        twice = next(i for i, n in Counter(q.id for q in questions).items() if n > 1)
        raise InputError(f"two questions have the id {twice!r}; ids must be unique in a run")
    made_by = provenance(setting)
    done = _finished(log, plan.samples, made_by)
    _check_questions(log, done.keys(), order.keys())
    progress = Progress(questions=len(questions))
    before = copy.deepcopy(setting.policy.stats)  # an engine may have run other steps already
    progress.done = progress.resumed = len(done)
    watch = watch or (lambda progress: None)
    if log.finished:
        return progress
    timed = Setting(setting.policy, _TimedRetriever(setting.retriever, progress), setting.agent)
    room = asyncio.Semaphore(max(1, plan.concurrency // plan.samples))

    async def one(question: Question) -> None:
        async with room, asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(_sample(question, k, timed, plan, made_by))
                for k in range(plan.samples)
            ]
        samples = [task.result() for task in tasks]
        lines = [trajectory.to_line() for trajectory in samples]
        log.append(*lines)  # a few milliseconds, and never torn apart by a cancellation
        done[question.id] = lines
        progress.policy = setting.policy.stats.since(before)
        _count(progress, samples)
        watch(progress)

    try:
        async with asyncio.TaskGroup() as group:
            for question in questions:
                if question.id not in done:
                    group.create_task(one(question))
    except BaseExceptionGroup as several:
        # One dead engine or full disk fails many tasks alike: the first says it all.
        raise first_of(several) from several
    log.finish(line for name in sorted(done, key=order.__getitem__) for line in done[name])
    return progress


def _count(progress: Progress, samples: Sequence[Trajectory]) -> None:
    progress.done += 1
    progress.episodes += len(samples)
    for trajectory in samples:
        progress.inexact += not trajectory.exact
        if trajectory.failure:
            progress.failures[trajectory.failure.reason] += 1


def first_of(several: BaseExceptionGroup[BaseException]) -> BaseException:
    """The first error of a task group, out of its wrapping: the others follow from it."""
    error = several.exceptions[0]
    return first_of(error) if isinstance(error, BaseExceptionGroup) else error


def _check_questions(log: AppendLog, held: Set[str], asked: Set[str]) -> None:
    """A log goes on only with the questions it was begun with."""
    strange = sorted(held - asked)
    missing = sorted(asked - held) if log.finished else []
    if strange or missing:
        what = f"holds question {strange[0]!r}" if strange else f"lacks question {missing[0]!r}"
        raise InputError(
            f"{log.path} {what}: it was made for other questions or another number of samples; "
            "remove it, or write to another folder"
        )


def _finished(log: AppendLog, samples: int, made_by: Provenance) -> dict[str, list[str]]:
    """Lines of the questions whose every sample is in the log.

    A group cut short by a kill is sampled again, to the same result.
    """
    groups: dict[str, list[str]] = {}
    for number, line in enumerate(log.lines(), 1):
        trajectory = parse_line(Trajectory, line, log.path, number)
        if trajectory.provenance != made_by:
            raise InputError(
                f"{log.path} holds trajectories of another model, index or prompt "
                f"({trajectory.provenance} where this run has {made_by}); "
                "remove it, or write to another run folder"
            )
        group = groups.setdefault(trajectory.question_id, [])
        if trajectory.sample < len(group):
            group.clear()  # the cut group's second, complete copy follows
        group.append(line.rstrip("\n"))
    return {name: lines for name, lines in groups.items() if len(lines) == samples}


async def _sample(
    question: Question, sample: int, setting: Setting, plan: Plan, made_by: Provenance
) -> Trajectory:
    seed = episode_seed(plan.seed, question.id, sample)
    how = Sampling(**{**plan.sampling.__dict__, "seed": seed})
    result = await run_episode(question.question, setting, how)
    scores = await score_answers(question, result, setting) if plan.score else ()
    return Trajectory(
        question_id=question.id,
        sample=sample,
        provenance=made_by,
        steps=result.steps,
        answer=result.answer,
        transcript=result.transcript,
        answer_ids=result.answer_ids,
        scores=scores,
        forced=result.forced,
        repairs=result.repairs,
        exact=result.exact,
        failure=result.failure,
    )


async def score_answers(
    question: Question, result: EpisodeResult | Trajectory, setting: Setting
) -> tuple[AnswerScore, ...]:
    """log p(alias | question, trajectory) of every gold alias, by the policy's own model.

    A trajectory whose transcript does not end in the closing reply (it ran out of
    room, the retriever failed) has no place for an answer, and no scores.
    """
    scorable = result.failure is None or result.failure.reason in ("malformed", "empty_answer")
    if not scorable or result.transcript is None:
        return ()
    prompt = result.transcript.token_ids
    targets = {alias: setting.policy.chat.encode_turn(alias) for alias in question.answers}
    room = setting.policy.max_tokens - len(prompt)
    fitting = {alias: ids for alias, ids in targets.items() if 0 < len(ids) < room}
    if not fitting:
        return ()
    logprobs = await setting.policy.score([prompt] * len(fitting), list(fitting.values()))
    if not all(math.isfinite(value) for values in logprobs for value in values):
        raise PolicyError(
            f"the gold answer of question {question.id!r} scores as not finite: the model has "
            "diverged; train it with a lower learning rate, or in another dtype"
        )
    return tuple(
        AnswerScore(alias=alias, logprob=sum(values), tokens=len(values))
        for alias, values in zip(fitting, logprobs, strict=True)
    )


def sampled(config: RunConfig, number: int) -> Plan:
    """The E-step's plan for round `number`: K samples per question, scored, seeds of its own."""
    s = config.sampling
    how = Sampling(temperature=s.temperature, top_p=s.top_p, top_k=s.top_k, min_p=s.min_p)
    seed = config.seed * 1000 + number
    return Plan(s.samples, how, seed, score=True, concurrency=config.policy.concurrency)


def greedy(config: RunConfig) -> Plan:
    """Evaluation's plan: the likeliest episode of each question."""
    score = config.evaluation.score_gold
    return Plan(1, Sampling(), config.seed, score, config.policy.concurrency)
