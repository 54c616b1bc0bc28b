"""The reference policy on a tiny model: repeatable, and its scores are the model's own."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from scripted import FakeRetriever
from tiny_model import AGENT, WordSearch

from exsearch.agent.episode import Setting
from exsearch.agent.model_files import model_digest, model_folder
from exsearch.agent.policies.base import Sampling
from exsearch.agent.policies.transformers import TransformersPolicy, _sample
from exsearch.agent.runner import Plan, run_questions
from exsearch.config import AgentConfig, ModelConfig
from exsearch.errors import InputError
from exsearch.records import Trajectory, read_records
from exsearch.storage import AppendLog

pytestmark = pytest.mark.loop


@pytest.fixture(scope="module")
def policy(tiny_models: tuple[str, str]) -> TransformersPolicy:
    return opened(tiny_models[1])


def opened(model: str) -> TransformersPolicy:
    return TransformersPolicy(model, ModelConfig(path=model, dtype="float32", max_tokens=1024))


def prompt_of(policy: TransformersPolicy, question: str = "Where?") -> list[int]:
    return list(policy.chat.opening("Search.", question).ids)


async def rolled(policy: TransformersPolicy, tiny_world, path: Path, seed: int = 1) -> bytes:
    retriever = FakeRetriever(answer=WordSearch(tiny_world.passages))
    how = Setting(policy, retriever, AgentConfig.model_validate(AGENT))
    plan = Plan(3, Sampling(temperature=0.8, top_p=0.95), seed, score=True, concurrency=6)
    await run_questions(tiny_world.questions["train"], how, plan, AppendLog(str(path)))
    return path.read_bytes()


async def test_two_runs_with_one_seed_are_equal_byte_for_byte(
    tiny_models: tuple[str, str], policy: TransformersPolicy, tiny_world, tmp_path: Path
) -> None:
    first = await rolled(policy, tiny_world, tmp_path / "a.jsonl")
    again = await rolled(opened(tiny_models[1]), tiny_world, tmp_path / "b.jsonl")
    other = await rolled(policy, tiny_world, tmp_path / "c.jsonl", seed=2)
    assert first == again
    assert first != other


async def test_the_tiny_model_really_searches(
    policy: TransformersPolicy, tiny_world, tmp_path: Path
) -> None:
    """The other tests lean on this: some episodes end well, some fail, samples differ."""
    text = (await rolled(policy, tiny_world, tmp_path / "a.jsonl")).decode()
    made = list(read_records(Trajectory, text.splitlines(), "a"))
    assert len([t for t in made if t.failure is None and len(t.steps) >= 2]) >= 3
    assert len({t.answer for t in made}) > 4
    assert all(len(t.scores) >= 1 for t in made if t.failure is None)


async def test_log_probabilities_of_a_turn_are_those_of_scoring_it(
    policy: TransformersPolicy,
) -> None:
    prompt = prompt_of(policy)
    sampling = Sampling(temperature=0.9, top_p=0.9, seed=5, max_tokens=20)
    [turn] = await policy.generate([prompt], [sampling])
    [scored] = await policy.score([prompt], [turn.ids])
    assert scored == pytest.approx(list(turn.logprobs), abs=1e-5)


async def test_scores_equal_a_full_forward_pass(policy: TransformersPolicy) -> None:
    prompt, target = prompt_of(policy), policy.chat.encode("Orla by the river")
    with torch.inference_mode():
        logits = policy._model(torch.tensor([prompt + target])).logits[0].double()
    rows = logits.log_softmax(-1)[len(prompt) - 1 : -1]
    expected = [float(rows[n, token]) for n, token in enumerate(target)]
    [scored] = await policy.score([prompt], [target])
    assert scored == pytest.approx(expected, abs=1e-5)


async def test_greedy_takes_the_likeliest_and_needs_no_seed(policy: TransformersPolicy) -> None:
    prompts = [prompt_of(policy, q) for q in ("Where?", "Who?")]
    first = await policy.generate(prompts, [Sampling(max_tokens=12)] * 2)
    again = await policy.generate(prompts[::-1], [Sampling(max_tokens=12, seed=9)] * 2)
    assert first == again[::-1]


async def test_a_turn_ends_at_its_limit(policy: TransformersPolicy) -> None:
    [turn] = await policy.generate([prompt_of(policy)], [Sampling(max_tokens=3)])
    assert len(turn.ids) == len(turn.logprobs) == 3
    assert not turn.ended


async def test_loading_another_checkpoint_changes_the_model(
    tiny_models: tuple[str, str],
) -> None:
    fresh, tuned = tiny_models
    policy, reference = opened(fresh), opened(tuned)
    prompt = prompt_of(policy)
    how = [Sampling(max_tokens=10)]
    before = await policy.generate([prompt], how)
    await policy.load(tuned)
    assert policy.digest == reference.digest != model_digest(fresh)
    assert await policy.generate([prompt], how) == await reference.generate([prompt], how) != before


@pytest.mark.parametrize(
    ("how", "allowed"),
    [
        (Sampling(temperature=1.0, top_k=2), {0, 1}),
        (Sampling(temperature=1.0, top_p=0.79), {0, 1}),
        (Sampling(temperature=1.0, top_p=0.81), {0, 1, 2}),
        (Sampling(temperature=1.0, min_p=0.3), {0, 1}),
        (Sampling(temperature=0.0), {0}),
        (Sampling(temperature=1.0), {0, 1, 2, 3}),
    ],
)
def test_sampling_keeps_within_its_limits(how: Sampling, allowed: set[int]) -> None:
    logprobs = torch.tensor([0.5, 0.3, 0.14, 0.06]).log()
    generator = torch.Generator().manual_seed(0)
    drawn = {_sample(logprobs, how, generator) for _ in range(400)}
    assert drawn == allowed


# --- unreadable models


def broken(source: str, folder: Path, name: str, content: bytes | None) -> str:
    shutil.copytree(source, folder)
    if content is None:
        (folder / name).unlink()
    else:
        (folder / name).write_bytes(content)
    return str(folder)


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("config.json", None, r"config\.json cannot be read"),
        ("config.json", b'{"a": ', r"config\.json is damaged"),
        ("tokenizer.json", None, r"has no tokenizer\.json"),
        ("model.safetensors", None, r"has no \*\.safetensors"),
        ("model.safetensors", b"", "damaged or cut short"),
        ("model.safetensors", b"x" * 500, "damaged or cut short"),
    ],
)
def test_unreadable_models_are_named(
    tiny_models: tuple[str, str], tmp_path: Path, name: str, content: bytes | None, why: str
) -> None:
    with pytest.raises(InputError, match=why):
        model_folder(broken(tiny_models[0], tmp_path / "m", name, content))


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_a_checkpoint_cut_short_is_refused(
    tiny_models: tuple[str, str], tmp_path: Path, share: float
) -> None:
    whole = (Path(tiny_models[0]) / "model.safetensors").read_bytes()
    cut = whole[: int(share * len(whole))]
    with pytest.raises(InputError, match="damaged or cut short"):
        opened(broken(tiny_models[0], tmp_path / "m", "model.safetensors", cut))


def test_digests_tell_models_apart(tiny_models: tuple[str, str], tmp_path: Path) -> None:
    fresh, tuned = tiny_models
    shutil.copytree(fresh, tmp_path / "copy")
    assert model_digest(fresh) == model_digest(str(tmp_path / "copy")) != model_digest(tuned)
    with pytest.raises(InputError, match="no model folder at"):
        model_digest("/nowhere")
