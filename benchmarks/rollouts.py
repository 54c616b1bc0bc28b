"""Rollouts: many episodes at once against one at a time, on the same engine.

The baselines are loops as the paper's released scripts have them, where each turn is a
request that waits for the one before it: `one_episode_at_a_time` takes a question's K
samples one after another, `one_question_at_a_time` takes them together and the next
question only when all have ended. Ours keeps every question's episodes in flight. Same
engine (vLLM, prefix caching on), same questions, a retriever that answers at once (passages
of the demo world by word overlap), so that only the scheduling differs. Seeds belong to a
question and its sample, so both of the latter write the same episodes; the tokens written
are reported for all three. Runs alternate; the prefix cache is emptied before each.

    python benchmarks/rollouts.py --model runs/demo/warmup/train/checkpoint

Reported: seconds of each, the median over repeats of their ratios to ours in the same repeat,
tokens written, and the share of prompt tokens served from the prefix cache.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

from exsearch.agent.episode import Setting
from exsearch.agent.policies.base import PolicyStats, Sampling
from exsearch.agent.policies.vllm import VllmPolicy
from exsearch.agent.runner import Plan, run_questions
from exsearch.config import AgentConfig, ModelConfig, PolicyConfig
from exsearch.data.world import World, build_world
from exsearch.records import Passage
from exsearch.storage import AppendLog, write_json

RESULT = Path(__file__).parent / "results" / "rollouts.json"


class OverlapRetriever:
    """The k passages that share most words with the query; costs no engine time."""

    digest = "word-overlap"

    def __init__(self, world: World) -> None:
        self._passages = [(p, set(f"{p.title} {p.text}".lower().split())) for p in world.passages]

    async def search(self, queries: list[str], k: int) -> list[list[Passage]]:
        return [self._best(set(query.lower().strip("?").split()), k) for query in queries]

    def _best(self, words: set[str], k: int) -> list[Passage]:
        ranked = sorted(self._passages, key=lambda p: (-len(words & p[1]), p[0].pid))
        return [passage for passage, _ in ranked[:k]]

    async def close(self) -> None:
        """Nothing to close."""


async def measure(arguments: argparse.Namespace) -> dict[str, object]:
    world = build_world(0)
    questions = list(world.questions["dev"])[: arguments.questions]
    policy = VllmPolicy(
        arguments.model,
        ModelConfig(path=arguments.model, dtype="float32", max_tokens=1024),
        PolicyConfig(enforce_eager=True),
        seed=0,
    )
    agent = AgentConfig(
        selection="top_n", passages=3, top_n=3, max_steps=4, max_passage_words=40,
        turn_tokens=48, answer_tokens=16, repairs=0,
    )  # fmt: skip
    setting = Setting(policy, OverlapRetriever(world), agent)
    sampling = Sampling(temperature=0.8, top_p=0.95)
    schedules = {
        "ours": (len(questions), arguments.samples, 64),
        "one_question_at_a_time": (1, arguments.samples, arguments.samples),
        "one_episode_at_a_time": (1, 1, 1),
    }
    seconds: dict[str, list[float]] = {name: [] for name in schedules}
    tokens: dict[str, list[int]] = {name: [] for name in schedules}
    hits: dict[str, list[float]] = {name: [] for name in schedules}

    async def run(together: int, samples: int, concurrency: int) -> float:
        """All questions, `together` of them and `samples` of each at once."""
        await policy.forget()
        policy.stats = PolicyStats()
        started = time.perf_counter()
        for first in range(0, len(questions), together):
            for sample in range(0, arguments.samples, samples):
                plan = Plan(samples, sampling, sample, score=False, concurrency=concurrency)
                with tempfile.TemporaryDirectory() as folder:
                    log = AppendLog(f"{folder}/shard.jsonl")
                    await run_questions(questions[first : first + together], setting, plan, log)
        return time.perf_counter() - started

    await run(*schedules["ours"])  # not counted: first use compiles and fills caches
    for _ in range(arguments.repeats):
        for name, schedule in schedules.items():
            seconds[name].append(await run(*schedule))
            tokens[name].append(policy.stats.output_tokens)
            hits[name].append(policy.stats.hit_rate)
    await policy.close()
    ratios = {
        name: statistics.median(b / a for a, b in zip(seconds["ours"], all_, strict=True))
        for name, all_ in seconds.items()
    }
    return {
        "command": f"python {' '.join(sys.argv)}",
        "cores": len(os.sched_getaffinity(0)),
        "questions": len(questions),
        "samples": arguments.samples,
        "seconds": seconds,
        "speedup": ratios,
        "tokens_written": {name: statistics.median(all_) for name, all_ in tokens.items()},
        "prefix_cache_share": {name: statistics.median(all_) for name, all_ in hits.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="See the head of this file.")
    parser.add_argument("--model", default="runs/demo/warmup/train/checkpoint")
    parser.add_argument("--questions", type=int, default=16)
    parser.add_argument("--samples", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=3)
    result = asyncio.run(measure(parser.parse_args()))
    write_json(RESULT, result)
    print(result)


if __name__ == "__main__":
    main()
