"""The real vLLM engine on the tiny model, held against plain transformers."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from scripted import FakeRetriever
from tiny_model import AGENT, WordSearch

from exsearch.agent.episode import Setting, run_episode
from exsearch.agent.policies import Policy, Sampling, open_policy
from exsearch.agent.policies.transformers import TransformersPolicy
from exsearch.config import AgentConfig, ModelConfig, load

pytestmark = [
    pytest.mark.engine,
    pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not installed"),
]

SETTINGS = [
    "policy.kind=vllm",
    "policy.enforce_eager=true",
    "policy.cpu_kv_gib=1",
    "policy.gpu_memory=0.1",
    "policy.max_sequences=16",
    "model.dtype=float32",
    "model.max_tokens=1024",
]


class Engines:
    """One vLLM engine on the fresh checkpoint and both references, on one event loop."""

    def __init__(self, models: tuple[str, str]) -> None:
        self.fresh, self.tuned = models
        self.runner = asyncio.Runner()
        self.vllm: Policy = self.runner.run(open_policy(load(None, SETTINGS), self.fresh))
        self.references = {m: reference(m) for m in models}

    def holding(self, model: str) -> Policy:
        """The engine, holding this model."""
        if self.vllm.digest != self.references[model].digest:
            self.runner.run(self.vllm.load(model))
        return self.vllm


def reference(model: str) -> TransformersPolicy:
    return TransformersPolicy(model, ModelConfig(path=model, dtype="float32", max_tokens=1024))


@pytest.fixture(scope="module")
def engines(tiny_models: tuple[str, str]) -> Iterator[Engines]:
    made = Engines(tiny_models)
    yield made
    children = child_processes()
    made.runner.run(made.vllm.close())
    made.runner.close()
    assert children, "the engine runs in a process of its own"
    deadline = time.monotonic() + 30
    while (left := children & child_processes()) and time.monotonic() < deadline:
        time.sleep(0.5)  # the engine's process is told to end, and needs a moment
    assert not left, f"closing the engine left {left} behind"


def child_processes() -> set[int]:
    """Ids of all living processes below this one."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                state = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if state[0] != "Z":
                parents[int(entry.name)] = int(state[1])
    found: set[int] = set()
    new = {os.getpid()}
    while new:
        new = {pid for pid, parent in parents.items() if parent in new} - found
        found |= new
    # Python's own bookkeeping process stays as long as this one.
    return {pid for pid in found if "resource_tracker" not in command(pid)}


def command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


def prompts(policy: Policy) -> list[list[int]]:
    asked = ("Where?", "Which river runs through the town?", "Who founded it, and when?")
    return [list(policy.chat.opening("Search.", text).ids) for text in asked]


def greedy(engines: Engines, policy: Policy):
    run = policy.generate(prompts(policy), [Sampling(max_tokens=24)] * 3)
    return engines.runner.run(run)  # type: ignore[arg-type]


TARGETS = ("Orla", "the River Orla", "1912")


def scored(engines: Engines, policy: Policy) -> list[list[float]]:
    targets = [policy.chat.encode_turn(text) for text in TARGETS]
    return engines.runner.run(policy.score(prompts(policy), targets))  # type: ignore[arg-type]


def test_it_writes_and_scores_as_the_reference_does(engines: Engines) -> None:
    """Also after loading other weights, and back: every weight really changes."""
    for model in (engines.fresh, engines.tuned, engines.fresh):
        policy, expected = engines.holding(model), engines.references[model]
        ours, theirs = greedy(engines, policy), greedy(engines, expected)
        assert [c.ids for c in ours] == [c.ids for c in theirs]
        for a, b in zip(ours, theirs, strict=True):
            assert a.ended == b.ended
            assert list(a.logprobs) == pytest.approx(list(b.logprobs), abs=1e-4)
        for x, y in zip(scored(engines, policy), scored(engines, expected), strict=True):
            assert x == pytest.approx(y, abs=1e-4)


def test_the_two_models_differ_where_they_are_compared(engines: Engines) -> None:
    fresh, tuned = engines.references[engines.fresh], engines.references[engines.tuned]
    assert greedy(engines, fresh) != greedy(engines, tuned)
    pairs = zip(scored(engines, fresh), scored(engines, tuned), strict=True)
    assert all(abs(sum(a) - sum(b)) > 0.1 for a, b in pairs)


def test_scoring_is_exact_on_a_prefix_that_is_hot(engines: Engines) -> None:
    policy = engines.holding(engines.tuned)
    first = scored(engines, policy)
    again = scored(engines, policy)
    for a, b in zip(first, again, strict=True):
        assert a == pytest.approx(b, abs=1e-5)


def test_a_second_turn_finds_its_prefix_in_the_cache(engines: Engines, tiny_world) -> None:
    policy = engines.holding(engines.tuned)
    before = policy.stats.cached_tokens
    retriever = FakeRetriever(answer=WordSearch(tiny_world.passages))
    how = Setting(policy, retriever, AgentConfig.model_validate(AGENT))
    question = tiny_world.questions["train"][0].question
    result = engines.runner.run(run_episode(question, how, Sampling()))
    assert result.steps
    assert policy.stats.cached_tokens > before
    assert 0.0 < policy.stats.hit_rate < 1.0


def test_greedy_episodes_equal_the_references(engines: Engines, tiny_world) -> None:
    retriever = FakeRetriever(answer=WordSearch(tiny_world.passages))
    agent = AgentConfig.model_validate(AGENT)
    ours = Setting(engines.holding(engines.tuned), retriever, agent)
    theirs = Setting(engines.references[engines.tuned], retriever, agent)

    async def both(question: str):
        return (
            await run_episode(question, ours, Sampling()),
            await run_episode(question, theirs, Sampling()),
        )

    for asked in tiny_world.questions["train"][:4]:
        a, b = engines.runner.run(both(asked.question))
        assert a == b


def test_sampling_differs_by_seed_and_stays_within_the_model(engines: Engines) -> None:
    policy = engines.holding(engines.tuned)
    prompt = prompts(policy)[1]
    how = [Sampling(temperature=1.5, seed=seed, max_tokens=16) for seed in range(6)]
    done = engines.runner.run(policy.generate([prompt] * 6, how))  # type: ignore[arg-type]
    assert len({c.ids for c in done}) > 1
    for turn in done:
        [exact] = engines.runner.run(engines.references[engines.tuned].score([prompt], [turn.ids]))
        assert list(turn.logprobs) == pytest.approx(exact, abs=1e-4)
        assert turn.ended == (turn.ids[-1] == policy.chat.end_ids[-1])


def test_more_prompt_tokens_than_one_step_reads_are_sampled_too(engines: Engines) -> None:
    """Seeded requests waiting in a long queue once killed the engine on a CPU."""
    chat = engines.vllm.chat
    long = [list(chat.opening("Search.", f"{n} and " * 300).ids)[:900] for n in range(16)]
    assert min(map(len, long)) > 500
    assert sum(map(len, long)) > 4096, "vLLM reads at least so many tokens in a step"
    how = [Sampling(temperature=0.8, max_tokens=4, seed=n) for n in range(16)]
    run = engines.vllm.generate(long, how)
    written = engines.runner.run(run)  # type: ignore[arg-type]
    assert len(written) == 16
    assert all(completion.ids for completion in written)
