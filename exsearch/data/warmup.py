"""Warm-up demonstrations without a paid model: gold hops, real retrieval.

A question whose hops are known (MuSiQue's decompositions, HotpotQA's supporting facts,
the demo world) becomes the episode a good agent would have had: each sub-query is
searched in the very index the agent will use, the passage that supports the hop is found
in the list (`labels`), the fact is the evidence, the gold answer ends it.

A hop whose gold passage was not retrieved either drops the question (`missing="drop"`:
the agent never sees evidence that no passage gave) or has its fact put into the list at
a random place in exchange for the last passage (`"insert"`: more questions, easier lists).
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from exsearch.data.labels import Labeller
from exsearch.data.sentences import supporting_sentence
from exsearch.errors import InputError, RetrieverError
from exsearch.records import Demonstration, Hop, Passage, Question, Step

Search = Callable[[list[str], int], list[list[Passage]]]
"""`search(queries, k)` → for each query its k best passages, best first."""
EVIDENCE_WORDS = 40
"""A longer fact is cut down to the sentence that states the answer."""


@dataclass(frozen=True)
class WarmupRule:
    """How demonstrations are chosen and labelled."""

    k: int = 20
    """Passages retrieved per sub-query."""
    limit: int = 1000
    """Demonstrations wanted at most."""
    hops: dict[int, float] = field(default_factory=dict)
    """Share of demonstrations by gold number of hops; empty: as they come."""
    seed: int = 0
    """Chooses the questions and the places of inserted passages."""
    missing: Literal["drop", "insert"] = "drop"
    """What becomes of a hop whose gold passage was not retrieved."""
    min_overlap: float = 0.5
    """Share of the fact's words a passage must hold, in order, to count as its source."""
    batch: int = 64
    """Questions searched at once."""


@dataclass
class WarmupReport:
    """What was made, what was left out, and why."""

    read: int = 0
    made: int = 0
    by_hops: Counter[int] = field(default_factory=Counter)
    labels: Counter[str] = field(default_factory=Counter)
    """Steps by what told the gold passage: pid, title, overlap, inserted."""
    dropped: Counter[str] = field(default_factory=Counter)
    """Questions by reason."""
    unused: int = 0
    """Questions not tried: the limit, or a share of hops, was reached without them."""

    def document(self) -> dict[str, Any]:
        """As JSON takes it."""
        return {name: dict(v) if isinstance(v, Counter) else v for name, v in vars(self).items()}


def make_demonstrations(
    questions: Iterable[Question],
    search: Search,
    rule: WarmupRule,
    *,
    progress: Callable[[int, int], None] = lambda done, wanted: None,
) -> tuple[list[Demonstration], WarmupReport]:
    """Turn questions with known hops into demonstrations, in a seeded order.

    With `rule.hops` the shares hold as long as the questions last: the total shrinks to
    what the rarest kind allows; a question that is dropped is replaced by another of its kind.

    Args:
        search: the retriever; called with the sub-queries of `rule.batch` questions at once.
        progress: called after each batch with demonstrations made and wanted.

    Raises:
        InputError: `rule.hops` has no positive share.
        RetrieverError: `search` answered another number of queries than it was asked.
    """
    report = WarmupReport()
    rng = random.Random(f"{rule.seed}/warmup")
    queues = _queues(questions, rule, rng, report)
    wanted = _quotas({hops: len(queue) for hops, queue in queues.items()}, rule)
    maker = _Maker(search, rule, rng, report)
    made: list[Demonstration] = []
    need = dict(wanted)
    while batch := _next_batch(queues, need, rule.batch):
        for question, demonstration in zip(batch, maker.make(batch), strict=True):
            if demonstration is not None:
                made.append(demonstration)
                need[_bucket(question, rule)] -= 1
                report.by_hops[len(demonstration.steps)] += 1
        progress(len(made), sum(wanted.values()))
    report.made = len(made)
    report.unused = sum(len(queue) for queue in queues.values())
    rng.shuffle(made)
    return made, report


def _bucket(question: Question, rule: WarmupRule) -> int:
    """The kind whose share a question counts to; 0 for all where no shares are set."""
    return len(question.decomposition) if rule.hops else 0


def _queues(
    questions: Iterable[Question], rule: WarmupRule, rng: random.Random, report: WarmupReport
) -> dict[int, list[Question]]:
    queues: dict[int, list[Question]] = {}
    for question in questions:
        report.read += 1
        bucket = _bucket(question, rule)
        if not question.decomposition:
            report.dropped["no known hops"] += 1
        elif rule.hops and rule.hops.get(bucket, 0) <= 0:
            report.dropped["number of hops not wanted"] += 1
        else:
            queues.setdefault(bucket, []).append(question)
    for _, queue in sorted(queues.items()):
        rng.shuffle(queue)
    return queues


def _quotas(available: dict[int, int], rule: WarmupRule) -> dict[int, int]:
    """Demonstrations wanted of each kind, by largest remainder."""
    if not rule.hops:
        return {0: min(rule.limit, available.get(0, 0))}
    shares = {hops: share for hops, share in rule.hops.items() if share > 0}
    whole = sum(shares.values())
    if whole <= 0:
        raise InputError("data.warmup_hops needs a share above 0, for example {2: 0.6, 3: 0.4}")
    total = min([rule.limit, *(int(available.get(h, 0) * whole / s) for h, s in shares.items())])
    exact = {hops: total * share / whole for hops, share in shares.items()}
    quotas = {hops: int(value) for hops, value in exact.items()}
    rest = sorted(exact, key=lambda hops: (quotas[hops] - exact[hops], hops))
    for hops in rest[: total - sum(quotas.values())]:
        quotas[hops] += 1
    return quotas


def _next_batch(
    queues: dict[int, list[Question]], need: dict[int, int], size: int
) -> list[Question]:
    """Take the questions still needed off their queues, at most `size`."""
    batch: list[Question] = []
    for bucket, queue in sorted(queues.items()):
        taken = min(need.get(bucket, 0), len(queue), size - len(batch))
        batch += queue[:taken]
        del queue[:taken]
    return batch


class _Maker:
    """Searches, labels and writes the steps of a batch of questions."""

    def __init__(
        self, search: Search, rule: WarmupRule, rng: random.Random, report: WarmupReport
    ) -> None:
        self._search, self._rule, self._rng, self._report = search, rule, rng, report
        self._labeller = Labeller(rule.min_overlap)

    def make(self, batch: Sequence[Question]) -> Iterator[Demonstration | None]:
        """One demonstration per question, None where it was dropped (counted in the report)."""
        queries = [hop.query for question in batch for hop in question.decomposition]
        results = self._search(queries, self._rule.k)
        if len(results) != len(queries):
            raise RetrieverError(
                f"the retriever answered {len(results)} of {len(queries)} queries at once"
            )
        lists = iter(results)
        for question in batch:
            retrieved = [list(next(lists)) for _ in question.decomposition]
            yield self._demonstration(question, retrieved)

    def _demonstration(
        self, question: Question, retrieved: list[list[Passage]]
    ) -> Demonstration | None:
        steps: list[Step] = []
        told: list[str] = []
        for hop, passages in zip(question.decomposition, retrieved, strict=True):
            label = self._labeller.find(hop, passages)
            if label is not None:
                position, how = label.position, str(label.how)
            elif self._rule.missing == "drop":
                self._report.dropped["gold passage not retrieved"] += 1
                return None
            elif hop.fact is None:
                self._report.dropped["gold passage not retrieved, no fact to insert"] += 1
                return None
            else:
                position, how = self._insert(hop, hop.fact, passages), "inserted"
            told.append(how)
            steps.append(
                Step(
                    query=hop.query,
                    passages=tuple(passages),
                    kept=(position,),
                    evidence=evidence(hop),
                )
            )
        self._report.labels.update(told)
        return Demonstration(
            id=question.id,
            question=question.question,
            steps=tuple(steps),
            answer=question.answers[0],
        )

    def _insert(self, hop: Hop, fact: str, passages: list[Passage]) -> int:
        """Put the fact in, in exchange for the last passage of a full list; its position."""
        del passages[self._rule.k - 1 :]
        place = self._rng.randint(0, len(passages))
        gold = Passage(pid=hop.pid or f"gold:{hop.title}", title=hop.title or "", text=fact)
        passages.insert(place, gold)
        return place + 1


def evidence(hop: Hop) -> str:
    """What the agent notes: the fact, one sentence of it if it is long, else query and answer."""
    fact = hop.fact
    if fact is not None and len(fact.split()) > EVIDENCE_WORDS:
        fact = supporting_sentence(fact, hop.answer, hop.query)
    if fact is None or len(fact.split()) > EVIDENCE_WORDS:
        return f"{hop.query.rstrip(' ?')}: {hop.answer}"
    return " ".join(fact.split())
