"""A finished run folder made up from a seed: what `exsearch em` leaves, without running it."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Sequence
from pathlib import Path

from exsearch.config import GateConfig
from exsearch.evaluation.bootstrap import paired_gain
from exsearch.evaluation.files import save_evaluation, write_jsonl
from exsearch.evaluation.gate import decide
from exsearch.evaluation.judgement import Judgement, judge
from exsearch.evaluation.summary import summarise
from exsearch.records import (
    AnswerScore,
    Failure,
    Hop,
    Passage,
    Provenance,
    Question,
    QuestionWeights,
    Step,
    Trajectory,
    WeightedTrajectory,
)
from exsearch.storage import write_json

FIRST = ["Maro", "Elin", "Tavi", "Odra", "Sefa", "Ilun", "Bero", "Cald", "Vesna", "Rulo"]
LAST = ["Quist", "Hallo", "Brenn", "Vantor", "Ossel", "Dray", "Kemp", "Luria", "Nord", "Sabel"]
TOWN = ["Velmora", "Asterholm", "Brackwater", "Coldmere", "Dunhaven", "Eskarn", "Fellbridge"]
RIVER = ["Ysel", "Torne", "Albrook", "Wend", "Saltwater", "Merrow", "Kessen"]
SKILL = {"base": 0.0, "warmup": 0.22, "iter-01": 0.42, "iter-02": 0.58}
HOSTILE = "</script><img src=x onerror=\"document.title='owned'\">{{ 7*7 }}\u2028\x00"
"""What a hostile passage may hold: markup, a script, a template, odd separators, NUL."""
MADE_BY = Provenance(model="3f2a9c", index="b71e55", prompt="90c1dd")


def make_run(
    folder: Path, *, questions: int = 64, samples: int = 5, rounds: int = 2, seed: int = 7
) -> Path:
    """Write the run and return its folder."""
    rng = random.Random(seed)
    train = [_question(f"train-{i:03d}", rng) for i in range(questions)]
    test = [_question(f"test-{i:03d}", rng) for i in range(questions)]
    write_jsonl(str(folder / "questions.jsonl"), [*train, *test])
    names = ["base", "warmup", *(f"iter-{i:02d}" for i in range(1, rounds + 1))]
    for number, name in enumerate(names[2:], 1):
        _write_estep(folder / name, train, samples, SKILL.get(name, 0.6) - 0.15, rng, number)
    for name in names[1:]:
        _write_log(folder / name / "train" / "log.jsonl", rng, SKILL.get(name, 0.6))
    judged = {name: _write_evaluation(folder / name / "eval", name, test, rng) for name in names}
    _write_summary(folder, judged)
    _write_lineage(folder, names)
    (folder / "run.yaml").write_text(
        "run: runs/demo\nseed: 3\nmodel:\n  path: models/smollm2-135m\n  dtype: float32\n"
        "sampling:\n  samples: 5\n  temperature: 0.8\n",
        encoding="utf-8",
    )
    return folder


def make_hostile(folder: Path) -> Path:
    """A run in which every text that comes from outside is `HOSTILE`."""
    make_run(folder, questions=3, samples=2, rounds=1)
    passage = Passage(pid=HOSTILE, title=HOSTILE, text=HOSTILE)
    step = Step(query=HOSTILE, passages=(passage,), kept=(1,), evidence=HOSTILE)
    question = Question(id=HOSTILE, question=HOSTILE, answers=(HOSTILE,))
    trajectory = Trajectory(
        question_id=HOSTILE,
        sample=0,
        provenance=MADE_BY,
        steps=(step,),
        answer=HOSTILE,
    )
    write_jsonl(str(folder / "questions.jsonl"), [question])
    write_jsonl(str(folder / "base" / "eval" / "trajectories.jsonl"), [trajectory])
    summary = json.loads((folder / "summary.json").read_text())
    summary["champion"] = summary["gate"]["reason"] = HOSTILE
    summary["stages"][0]["name"] = HOSTILE
    summary["stages"][0]["failures"] = {HOSTILE: 1}
    summary["comparisons"][0]["candidate"] = HOSTILE
    (folder / "summary.json").write_text(json.dumps(summary))
    lineage = {HOSTILE: {"seconds": 1.0}, "odd \ud800": {"seconds": 2.0}}
    (folder / "lineage.json").write_text(json.dumps(lineage))
    (folder / "run.yaml").write_text(f"model: {{path: {json.dumps(HOSTILE)}}}\n")
    estep = json.loads((folder / "iter-01" / "estep.json").read_text())
    estep["failures"] = {HOSTILE: 3}
    (folder / "iter-01" / "estep.json").write_text(json.dumps(estep))
    return folder


def _question(identifier: str, rng: random.Random) -> Question:
    person, town, river = (
        f"{rng.choice(FIRST)} {rng.choice(LAST)}",
        rng.choice(TOWN),
        rng.choice(RIVER),
    )
    hops = [
        Hop(query=f"Where was {person} born?", answer=town, title=person, pid=f"p-{person}"),
        Hop(query=f"Which river runs through {town}?", answer=river, title=town, pid=f"p-{town}"),
    ]
    text = f"Which river runs through the town where {person} was born?"
    if rng.random() < 0.35:
        hops.append(
            Hop(
                query=f"Where does the {river} rise?",
                answer="Mount Corry",
                title=river,
                pid=f"p-{river}",
            )
        )
        text = f"Where does the river that runs through {person}'s birthplace rise?"
    return Question(
        id=identifier,
        question=text,
        answers=(hops[-1].answer, f"the {hops[-1].answer}"),
        dataset="world",
        kind=f"{len(hops)}hop",
        hops=len(hops),
        titles=tuple(h.title or "" for h in hops),
        pids=tuple(h.pid or "" for h in hops),
        decomposition=tuple(hops),
    )


def _passages(hop: Hop, rng: random.Random, found: bool) -> list[Passage]:
    """Five passages, the hop's own among the first three where the search went well."""
    noise = [f"{rng.choice(FIRST)} {rng.choice(LAST)}" for _ in range(5)]
    passages = [
        Passage(
            pid=f"p-{name}",
            title=name,
            text=f"{name} is a painter from {rng.choice(TOWN)}, known for views of a river. "
            "The early work was lost in a fire; two later series hang in the town hall.",
            score=round(20 - i - rng.random(), 2),
        )
        for i, name in enumerate(noise)
    ]
    if found:
        own = f"{hop.title} stands for what was asked: {hop.query} The records say {hop.answer}."
        passages.insert(
            rng.randrange(3), Passage(pid=hop.pid or "", title=hop.title or "", text=own)
        )
    return passages[:5]


def _trajectory(question: Question, sample: int, skill: float, rng: random.Random) -> Trajectory:
    """An episode that goes the better the higher `skill` is, with scores to match."""
    right = rng.random() < skill
    hops = (
        list(question.decomposition)
        if right
        else list(question.decomposition[: rng.choice([1, 2, 2, 3])])
    )
    if right and rng.random() < 0.15:
        hops.append(hops[-1])
    steps = []
    for place, hop in enumerate(hops):
        found = right or rng.random() < 0.5 + skill / 3
        passages = _passages(hop, rng, found)
        kept = tuple(rng.sample(range(1, 6), rng.choice([1, 2, 2, 3])))
        if found:
            at = next(i for i, p in enumerate(passages, 1) if p.pid == hop.pid)
            kept = (at, *(k for k in kept if k != at))
        told = hop.answer if found else rng.choice(TOWN)
        steps.append(
            Step(
                query=hop.query if right or place == 0 else f"Who painted {rng.choice(TOWN)}?",
                passages=tuple(passages),
                kept=kept,
                evidence=f"The records say {told}.",
            )
        )
    failed = skill < 0.05 or rng.random() < 0.06
    if failed:
        reason = rng.choice(["malformed", "malformed", "retriever", "too_long"])
        return Trajectory(
            question_id=question.id,
            sample=sample,
            provenance=MADE_BY,
            steps=tuple(steps[:1]),
            failure=Failure(reason=reason, detail="no <QUERY> or <FINAL> after one repair"),
            repairs=1,
        )
    logprob = -abs(rng.gauss(0.25 if right else 4.5, 0.2 if right else 1.6))
    return Trajectory(
        question_id=question.id,
        sample=sample,
        provenance=MADE_BY,
        steps=tuple(steps),
        answer=question.answers[0] if right else rng.choice([*RIVER, "Mount Ire", "in the north"]),
        scores=(AnswerScore(alias=question.answers[0], logprob=logprob, tokens=3),),
        forced=rng.random() < 0.03,
    )


def _write_estep(
    folder: Path,
    train: Sequence[Question],
    samples: int,
    skill: float,
    rng: random.Random,
    number: int,
) -> None:
    episodes = [[_trajectory(q, k, skill, rng) for k in range(samples)] for q in train]
    half = len(train) // 2
    for shard, part in enumerate((episodes[:half], episodes[half:])):
        path = folder / "rollouts" / f"shard-{shard:03d}-of-002.jsonl"
        write_jsonl(str(path), [t for group in part for t in group])
    weights = [_weigh(q, group) for q, group in zip(train, episodes, strict=True)]
    write_jsonl(str(folder / "weights.jsonl"), weights)
    flat = [t for group in episodes for t in group]
    marginals = [w.log_marginal for w in weights if w.log_marginal is not None]
    done = [
        (t, q) for q, group in zip(train, episodes, strict=True) for t in group if not t.failure
    ]
    reasons = [t.failure.reason for t in flat if t.failure]
    write_json(
        folder / "estep.json",
        {
            "questions": len(train),
            "samples": len(flat),
            "log_marginal": sum(marginals) / len(marginals),
            "ess": sum(w.ess for w in weights) / len(weights),
            "reachability": sum(any(s.correct for s in w.samples) for w in weights) / len(weights),
            "reached": sum(w.reached for w in weights) / len(weights),
            "sample_accuracy": sum(s.correct for w in weights for s in w.samples) / len(flat),
            "steps": sum(len(t.steps) for t in flat) / len(flat),
            "over_search": sum(len(t.steps) > (q.hops or 0) for t, q in done) / len(done),
            "under_search": sum(len(t.steps) < (q.hops or 0) for t, q in done) / len(done),
            "failures": {reason: reasons.count(reason) for reason in sorted(set(reasons))},
            "seconds": 180.0 + 7 * number,
            "tokens": 190_000 + 3_111 * number,
        },
    )


def _weigh(question: Question, group: Sequence[Trajectory]) -> QuestionWeights:
    lls = [t.scores[0].logprob if t.scores else None for t in group]
    known = [ll for ll in lls if ll is not None]
    total = sum(math.exp(ll) for ll in known)
    weights = [math.exp(ll) / total if ll is not None else 0.0 for ll in lls]
    return QuestionWeights(
        question_id=question.id,
        samples=tuple(
            WeightedTrajectory(
                sample=t.sample,
                weight=w,
                log_likelihood=ll,
                correct=t.answer in question.answers,
                steps=len(t.steps),
                failure=t.failure.reason if t.failure else None,
            )
            for t, w, ll in zip(group, weights, lls, strict=True)
        ),
        log_marginal=math.log(total / len(group)) if known else None,
        ess=1 / sum(w * w for w in weights) if known else 0.0,
        reached=max(known, default=-99.0) > math.log(0.1),
    )


def _write_log(path: Path, rng: random.Random, skill: float) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = []
    for step in range(1, 61):
        warm = min(1.0, step / 6)
        entry = {
            "step": step,
            "loss": round((1.6 - skill) * math.exp(-step / 22) + 0.35 + rng.gauss(0, 0.04), 4),
            "learning_rate": 5e-5 * warm * 0.5 * (1 + math.cos(math.pi * step / 60)),
            "grad_norm": round(abs(rng.gauss(1.4, 0.3)), 3),
        }
        lines.append(json.dumps(entry))
    lines.append(json.dumps({"step": 60, "train_runtime": 142.1}))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _write_evaluation(
    folder: Path, name: str, test: Sequence[Question], rng: random.Random
) -> list[Judgement]:
    skill = SKILL.get(name, 0.6)
    episodes = [_trajectory(q, 0, skill, rng) for q in test]
    judged = [judge(q, t) for q, t in zip(test, episodes, strict=True)]
    summary = summarise(
        judged, name=name, bootstrap=500, ess=2.1 if name.startswith("iter") else None, seconds=81.5
    )
    save_evaluation(folder, judged, summary, episodes)
    return judged


def _write_summary(folder: Path, judged: dict[str, list[Judgement]]) -> None:
    names = list(judged)
    pairs = [(names[-1], "base"), (names[-1], "warmup"), *zip(names[2:], names[1:-1], strict=True)]
    decision = decide(
        judged[names[-1]],
        judged["warmup"],
        GateConfig(),
        names=(names[-1], "warmup"),
        bootstrap=500,
    )
    write_json(
        folder / "summary.json",
        {
            "stages": [
                json.loads((folder / name / "eval" / "summary.json").read_text()) for name in names
            ],
            "comparisons": [
                paired_gain(judged[a], judged[b], names=(a, b), resamples=500).model_dump(
                    mode="json"
                )
                for a, b in dict.fromkeys(pairs)
            ],
            "gate": decision.model_dump(mode="json"),
            "champion": f"{names[-1]}/model",
        },
    )


def _write_lineage(folder: Path, names: Sequence[str]) -> None:
    steps = ["world", "index", "warmup", "sft"]
    for name in names[2:]:
        steps += [f"{name}/rollout", f"{name}/weigh", f"{name}/align", f"{name}/evaluate"]
    write_json(
        folder / "lineage.json",
        {
            step: {"fingerprint": "x", "finished": 1000.0 + i, "seconds": 3.0 + 37.5 * (i % 5)}
            for i, step in enumerate(steps)
        },
    )
