"""Rollouts: many episodes at once against one question at a time, on the same engine.

The baseline is what the paper's released scripts do: a question's K samples one
after another, each turn a request that waits for the one before it, the next
question only then. Ours keeps all episodes in flight. Same engine (vLLM, prefix
caching on), same prompts, same seeds, a retriever that answers at once (the gold
passages and distractors of the demo world, by word overlap), so that only the
scheduling differs. Runs alternate; the prefix cache is emptied before each.

    python benchmarks/rollouts.py --model runs/demo/warmup/train/checkpoint

Reported: median seconds of both, their ratio, and the share of prompt tokens
served from the prefix cache.
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
    seconds: dict[str, list[float]] = {"ours": [], "one_at_a_time": []}
    hits: list[float] = []

    async def run(concurrency: int) -> float:
        await policy.forget()
        policy.stats = PolicyStats()
        plan = Plan(arguments.samples, sampling, 0, score=False, concurrency=concurrency)
        with tempfile.TemporaryDirectory() as folder:
            started = time.perf_counter()
            await run_questions(questions, setting, plan, AppendLog(f"{folder}/shard.jsonl"))
            return time.perf_counter() - started

    async def one_at_a_time() -> float:
        await policy.forget()
        started = time.perf_counter()
        for question in questions:
            for sample in range(arguments.samples):
                plan = Plan(1, sampling, sample, score=False, concurrency=1)
                with tempfile.TemporaryDirectory() as folder:
                    log = AppendLog(f"{folder}/shard.jsonl")
                    await run_questions([question], setting, plan, log)
        return time.perf_counter() - started

    await run(64)  # not counted: first use compiles and fills caches
    for _ in range(arguments.repeats):
        seconds["ours"].append(await run(64))
        hits.append(policy.stats.hit_rate)
        seconds["one_at_a_time"].append(await one_at_a_time())
    await policy.close()
    ours, theirs = (statistics.median(seconds[name]) for name in ("ours", "one_at_a_time"))
    return {
        "command": f"python {' '.join(sys.argv)}",
        "cores": len(os.sched_getaffinity(0)),
        "questions": len(questions),
        "samples": arguments.samples,
        "seconds": seconds,
        "median_seconds": {"ours": ours, "one_at_a_time": theirs},
        "speedup": theirs / ours,
        "prefix_cache_share": statistics.median(hits),
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
