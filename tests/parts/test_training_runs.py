"""Whole runs of a tiny model: in one process, in two, killed, frozen, with LoRA."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from training_world import Weights, example, make_job, make_world, weights_of
from transformers import AutoModelForCausalLM, AutoTokenizer

from exsearch.config import TrainingConfig
from exsearch.errors import ExSearchError
from exsearch.training import launch as launching
from exsearch.training import model as modelling
from exsearch.training import run as running
from exsearch.training.job import TrainingJob, TrainingResult
from exsearch.training.launch import launch
from exsearch.training.plan import plan

pytestmark = pytest.mark.training


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """So small a model only waits for its threads, and sums come out equal to the last bit."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        yield
    torch.set_num_threads(threads)


def in_process(job: TrainingJob) -> Weights:
    return weights_of(running.run(job, plan(job), job.fingerprint()).checkpoint)


def assert_same(found: Weights, expected: Weights, tolerance: float = 1e-5) -> None:
    """Adam divides by the gradient's size, so tiny gradients turn rounding into steps."""
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=0, atol=tolerance, msg=name)


@pytest.fixture(scope="module")
def reference(world: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainingResult:
    """One process, started as a user's would be."""
    events: list[launching.Event] = []
    job = make_job(world, tmp_path_factory.mktemp("reference"))
    result = launch(job, on_progress=events.append)
    assert [event["event"] for event in events] == ["start", *["step"] * 3, "done"]
    return result


def test_a_run_leaves_a_whole_model_and_its_curves(world: Path, reference: TrainingResult) -> None:
    folder = Path(reference.checkpoint)
    assert {path.name for path in folder.parent.iterdir()} == {
        "checkpoint", "curves.png", "job.json", "log.jsonl", "result.json",
    }  # fmt: skip
    AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.chat_template == "{{ messages }}"
    source = (world / "model" / "tokenizer.json").read_bytes()
    assert (folder / "tokenizer.json").read_bytes() == source
    log = [json.loads(line) for line in (folder.parent / "log.jsonl").open()]
    assert [line["step"] for line in log] == [1, 2, 3]
    assert log[-1]["epoch"] == 1.0
    assert reference.steps == 3
    assert reference.examples.used == 15
    assert reference.examples.zero_weight == 3
    assert reference.loss_first == log[0]["loss_per_token"]
    assert weights_of(folder).keys() == weights_of(world / "model").keys()


def test_the_loss_noted_is_the_definitions(world: Path, reference: TrainingResult) -> None:
    from exsearch.training.batching import plan_steps

    model = AutoModelForCausalLM.from_pretrained(world / "model").eval()
    used = [item for item in map(example, range(18)) if item.weight]
    total = weight = 0.0
    for number in plan_steps(len(used), 6, 1, seed=0)[0]:
        item = used[number]
        ids = torch.tensor(item.transcript.token_ids)
        mask = torch.tensor(item.transcript.loss_mask)[1:]
        with torch.no_grad():
            logs = model(ids[None]).logits[0, :-1].log_softmax(-1)
        total -= item.weight * logs.gather(1, ids[1:, None])[:, 0][mask].sum().item()
        weight += item.weight
    log = Path(reference.checkpoint).parent / "log.jsonl"
    assert json.loads(log.read_text().splitlines()[0])["loss"] == pytest.approx(total / weight)


def test_a_finished_run_is_recognised(reference: TrainingResult, world: Path) -> None:
    events: list[launching.Event] = []
    job = make_job(world, Path(reference.checkpoint).parent)
    assert launch(job, on_progress=events.append) == reference
    assert events == []


@pytest.mark.parametrize(
    "options",
    [{"micro_tokens": 1}, {"micro_tokens": 10_000}, {"gradient_checkpointing": True}],
    ids=str,
)
def test_how_a_step_is_computed_does_not_matter(
    world: Path, reference: TrainingResult, tmp_path: Path, options: dict[str, object]
) -> None:
    found = in_process(make_job(world, tmp_path, **options))
    assert_same(found, weights_of(reference.checkpoint))


def noted(result: TrainingResult, name: str) -> list[float]:
    """A column of the run's `log.jsonl`."""
    log = Path(result.checkpoint).parent / "log.jsonl"
    return [json.loads(line)[name] for line in log.open()]


@pytest.mark.parametrize("stage", [0, 2, 3], ids=["ddp", "zero2", "zero3"])
def test_two_processes_train_the_same_model(
    world: Path, reference: TrainingResult, tmp_path: Path, stage: int
) -> None:
    job = make_job(world, tmp_path, nproc=2, zero_stage=stage)
    result = launch(job, on_progress=lambda _: None)
    assert result.steps == reference.steps
    # AdamW hides a wrong scale of the gradient; its norm, noted before clipping, does not.
    for name in ("loss", "grad_norm"):
        assert noted(result, name) == pytest.approx(noted(reference, name), rel=1e-3)
    assert_same(weights_of(result.checkpoint), weights_of(reference.checkpoint))


def test_a_killed_run_goes_on_as_if_nothing_happened(world: Path, tmp_path: Path) -> None:
    options = {"epochs": 8, "save_steps": 2}
    whole = in_process(make_job(world, tmp_path / "whole", **options))
    job = make_job(world, tmp_path / "killed", **options)
    kill_at = random.randint(3, 12)

    class Killed(Exception):
        pass

    def kill(event: launching.Event) -> None:
        if event["event"] == "start":
            pids.extend(children_of(os.getpid()))
        if event["event"] == "step" and event["step"] == kill_at:
            os.kill(pids[-1], signal.SIGKILL)

    pids: list[int] = []
    with pytest.raises(ExSearchError, match="exit code -9"):
        launch(job, on_progress=kill)
    starts: list[int] = []
    result = launch(job, on_progress=lambda event: starts.append(event.get("step", -1)))
    assert starts[0] >= 2, "it did not resume"
    assert result.steps == 20
    found = weights_of(result.checkpoint)
    for name, tensor in whole.items():
        assert torch.equal(found[name], tensor), name
    lines = (tmp_path / "killed" / "log.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == list(range(1, 21))
    assert not (tmp_path / "killed" / "state").exists()


def children_of(pid: int) -> list[int]:
    """Direct children, oldest first (Linux)."""
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(child) for child in text.split()]


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_the_run_ends_with_its_launcher(world: Path, tmp_path: Path, how: signal.Signals) -> None:
    """Asked to stop, or killed outright: the training process must not go on alone."""
    job = make_job(world, tmp_path, epochs=2000)
    code = (
        "import sys; from exsearch.training.job import read_job;"
        "from exsearch.training.launch import launch; launch(read_job(sys.argv[1]))"
    )
    (tmp_path / "asked.json").write_text(job.model_dump_json())
    launcher = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "asked.json")])
    log = tmp_path / "log.jsonl"
    try:
        until(lambda: log.exists() and log.stat().st_size > 0)
        (trainer,) = children_of(launcher.pid)
        launcher.send_signal(how)
        launcher.wait(timeout=60)
        until(lambda: not alive(trainer))
    finally:
        launcher.kill()


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def until(condition, seconds: float = 120.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_frozen_parts_stay_as_they_are(world: Path, tmp_path: Path) -> None:
    before = weights_of(world / "model")
    found = in_process(make_job(world, tmp_path, freeze_embeddings=True, freeze_layers=2))
    changed = {name for name in before if not torch.equal(before[name], found[name])}
    assert changed
    assert all(name.startswith(("model.layers.2.", "model.norm")) for name in changed)


def test_nothing_is_computed_backward_below_frozen_layers(world: Path) -> None:
    model = modelling.load_model(world / "model", torch.float32)
    options = TrainingConfig(freeze_embeddings=True, freeze_layers=2)
    modelling.prepare(model, options, 0)
    layers = modelling.decoder_layers(model)
    asked: list[bool] = []
    for layer in layers:
        layer.register_forward_hook(lambda _, __, out: asked.append(out.requires_grad))
    model.train()(input_ids=torch.tensor([[1, 2, 3]]), use_cache=False)
    assert asked == [False, False, True]


def test_lora_is_merged_when_saved(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    merged: list[Weights] = []
    publish = running.publish

    def peek(model, state, *rest) -> None:
        merged.append({name: tensor.clone() for name, tensor in state.items()})
        publish(model, state, *rest)

    monkeypatch.setattr(running, "publish", peek)
    trainers = []
    whole_state = running.WeightedTrainer.whole_state

    def keep(trainer) -> Weights:
        trainers.append(trainer)
        return whole_state(trainer)

    monkeypatch.setattr(running.WeightedTrainer, "whole_state", keep)
    job = make_job(world, tmp_path, lora_rank=4, freeze_layers=1)
    found = in_process(job)
    before = weights_of(world / "model")
    assert found.keys() == before.keys()
    changed = {name for name in before if not torch.equal(before[name], found[name])}
    assert len(changed) == 2 * 7
    assert all(name.startswith(("model.layers.1.", "model.layers.2.")) for name in changed)
    expected = trainers[0].model.merge_and_unload().state_dict()
    for name, tensor in found.items():
        torch.testing.assert_close(tensor, expected[name], rtol=0, atol=1e-6)
