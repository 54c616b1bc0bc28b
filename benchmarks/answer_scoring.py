"""Answer likelihoods: forced tokens on a cached prefix against the two usual ways.

1. ours: the answer's tokens are forced by a logits processor after a prefix that
   is still cached from the episode; the engine reports the model's own log-probabilities;
2. `prompt_logprobs` of the same engine, which computes the whole transcript anew;
3. one full forward per trajectory in transformers with logits at every position.

All three score the same answers of the same sampled episodes; the values are
compared. Medians over repeats, measured in one run.

    python benchmarks/answer_scoring.py --model runs/demo/warmup/train/checkpoint \\
        --rollouts runs/demo/iter-01/rollouts/shard-000-of-001.jsonl
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from exsearch.agent.policies.vllm import VllmPolicy
from exsearch.config import ModelConfig, PolicyConfig
from exsearch.records import Trajectory
from exsearch.storage import write_json

RESULT = Path(__file__).parent / "results" / "answer_scoring.json"

Pairs = list[tuple[list[int], list[int]]]
"""(transcript ids, answer ids) of one trajectory each."""


def pairs_of(policy: VllmPolicy, rollouts: str, count: int) -> Pairs:
    lines = Path(rollouts).read_text().splitlines()
    trajectories = (Trajectory.model_validate_json(line) for line in lines)
    scored = [t for t in trajectories if t.scores and t.transcript and not t.failure]
    return [
        (t.transcript.token_ids, policy.chat.encode_plain(t.scores[0].alias))
        for t in scored[:count]
        if t.transcript
    ]


async def prompt_logprobs(policy: VllmPolicy, pairs: Pairs, round_: int) -> list[float]:
    """The engine's own way to score a prompt."""
    from vllm import SamplingParams, TokensPrompt

    async def one(number: int, prompt: list[int], answer: list[int]) -> float:
        params = SamplingParams(max_tokens=1, prompt_logprobs=0, detokenize=False)
        last = None
        request = policy._engine.generate(
            TokensPrompt(prompt_token_ids=prompt + answer), params, f"p{round_}-{number}"
        )
        async for output in request:
            last = output
        assert last is not None
        assert last.prompt_logprobs is not None
        tail = last.prompt_logprobs[len(prompt) :]
        return sum(e[t].logprob for e, t in zip(tail, answer, strict=True) if e is not None)

    return list(await asyncio.gather(*(one(i, p, a) for i, (p, a) in enumerate(pairs))))


def full_forwards(model: str, pairs: Pairs) -> Callable[[], list[float]]:
    """One forward per trajectory, logits everywhere, as the paper's `entropy` script does."""
    import torch
    from transformers import AutoModelForCausalLM

    loaded = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()

    @torch.inference_mode()
    def score() -> list[float]:
        values = []
        for prompt, answer in pairs:
            logits = loaded(input_ids=torch.tensor([prompt + answer])).logits[0, :-1]
            logprobs = logits.log_softmax(-1)[-len(answer) :]
            values.append(float(logprobs.gather(-1, torch.tensor(answer)[:, None]).sum()))
        return values

    return score


async def measure(arguments: argparse.Namespace) -> dict[str, object]:
    config = ModelConfig(path=arguments.model, dtype="float32", max_tokens=1024)
    policy = VllmPolicy(arguments.model, config, PolicyConfig(enforce_eager=True), seed=0)
    pairs = pairs_of(policy, arguments.rollouts, arguments.trajectories)
    forward = full_forwards(arguments.model, pairs)
    prompts, answers = [p for p, _ in pairs], [a for _, a in pairs]

    async def ours() -> list[float]:
        return [sum(values) for values in await policy.score(prompts, answers)]

    async def transformers() -> list[float]:
        return await asyncio.to_thread(forward)

    seconds: dict[str, list[float]] = {}
    values: dict[str, list[float]] = {}

    async def timed(name: str, work: Callable[[], Awaitable[list[float]]]) -> None:
        started = time.perf_counter()
        values[name] = await work()
        seconds.setdefault(name, []).append(time.perf_counter() - started)

    await ours()  # fills the prefix cache, as the episodes just before would have
    for number in range(arguments.repeats):
        await timed("ours", ours)
        await timed("prompt_logprobs", lambda n=number: prompt_logprobs(policy, pairs, n))
        await timed("full_forward", transformers)
    await policy.close()
    median = {name: statistics.median(all_) for name, all_ in seconds.items()}
    return {
        "command": f"python {' '.join(sys.argv)}",
        "cores": len(os.sched_getaffinity(0)),
        "trajectories": len(pairs),
        "mean_transcript_tokens": statistics.fmean(map(len, prompts)),
        "median_seconds": median,
        "speedup": {n: median[n] / median["ours"] for n in ("prompt_logprobs", "full_forward")},
        "largest_difference": {
            name: max(abs(a - b) for a, b in zip(values["ours"], values[name], strict=True))
            for name in ("prompt_logprobs", "full_forward")
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="See the head of this file.")
    parser.add_argument("--model", default="runs/demo/warmup/train/checkpoint")
    parser.add_argument("--rollouts", default="runs/demo/iter-01/rollouts/shard-000-of-001.jsonl")
    parser.add_argument("--trajectories", type=int, default=48)
    parser.add_argument("--repeats", type=int, default=3)
    result = asyncio.run(measure(parser.parse_args()))
    write_json(RESULT, result)
    print(result)


if __name__ == "__main__":
    main()
