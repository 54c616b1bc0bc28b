"""Recognising finished work, weights that cannot be used, the learning rate."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exsearch import storage
from exsearch.config import TrainingConfig
from exsearch.errors import InputError
from exsearch.training import state, weights
from exsearch.training.job import ExampleCounts, TrainingJob, TrainingResult, finished, read_job
from exsearch.training.launch import command
from exsearch.training.main import LAUNCHER
from exsearch.training.schedule import learning_rate_share

pytestmark = pytest.mark.unit


def write_model(folder: Path, fill: bytes = b"\0") -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text("{}")
    (folder / "tokenizer.json").write_text("{}")
    header = {"w": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}}
    text = json.dumps(header).encode()
    (folder / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + fill * 24)
    return folder


@pytest.fixture
def job(tmp_path: Path) -> TrainingJob:
    examples = tmp_path / "examples.jsonl"
    examples.write_text("one\n")
    return TrainingJob(
        model=str(write_model(tmp_path / "model")),
        examples=str(examples),
        output=str(tmp_path / "out"),
    )


def test_a_job_survives_its_file(job: TrainingJob, tmp_path: Path) -> None:
    path = tmp_path / "job.json"
    path.write_text(job.model_dump_json())
    assert read_job(str(path)) == job


def test_a_foreign_job_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "job.json").write_text('{"model": 3}')
    with pytest.raises(InputError, match="not a training job"):
        read_job(str(tmp_path / "job.json"))


def test_what_decides_the_weights_decides_the_fingerprint(job: TrainingJob) -> None:
    before = job.fingerprint()
    spread = TrainingConfig(nproc=2, zero_stage=3, micro_tokens=7, gradient_checkpointing=False)
    assert job.model_copy(update={"settings": spread}).fingerprint() == before
    assert job.model_copy(update={"output": "elsewhere"}).fingerprint() == before
    assert job.model_copy(update={"seed": 1}).fingerprint() != before
    rate = TrainingConfig(learning_rate=1.0)
    assert job.model_copy(update={"settings": rate}).fingerprint() != before
    write_model(Path(job.model), fill=b"\1")
    assert job.fingerprint() != before


def test_changed_examples_change_the_fingerprint(job: TrainingJob) -> None:
    before = job.fingerprint()
    Path(job.examples).write_text("two\n")
    assert job.fingerprint() != before


def test_only_this_jobs_result_counts_as_finished(job: TrainingJob) -> None:
    result = TrainingResult(
        checkpoint=job.checkpoint,
        fingerprint="this",
        steps=1,
        examples=ExampleCounts(used=1),
        loss_first=1.0,
        loss_last=0.5,
        tokens=9,
        seconds=1.0,
    )
    assert finished(job, "this") is None
    storage.write_json(f"{job.output}/result.json", result.model_dump())
    assert finished(job, "this") is None  # no checkpoint beside it
    Path(job.checkpoint).mkdir()
    assert finished(job, "this") == result
    assert finished(job, "other") is None
    Path(job.output, "result.json").write_text("{}")
    assert finished(job, "this") is None


def test_whole_weights_are_counted(tmp_path: Path) -> None:
    facts = weights.inspect(write_model(tmp_path / "model"))
    assert facts.parameters == 6


def test_a_missing_folder_is_named() -> None:
    with pytest.raises(InputError, match=r"no model folder \./nowhere"):
        weights.resolve("./nowhere")


def test_a_folder_without_configuration_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no config\.json"):
        weights.resolve(str(tmp_path))


@pytest.mark.parametrize("damage", ["gone", "truncated", "foreign", "empty"])
def test_damaged_weights_are_found_out_early(tmp_path: Path, damage: str) -> None:
    file = write_model(tmp_path / "model") / "model.safetensors"
    if damage == "gone":
        file.unlink()
    elif damage == "truncated":
        file.write_bytes(file.read_bytes()[:-1])
    elif damage == "foreign":
        file.write_bytes(b"PK\x03\x04" * 30)
    else:
        file.write_bytes(b"")
    with pytest.raises(InputError, match=r"model\.safetensors"):
        weights.inspect(file.parent)


def test_an_index_that_names_a_missing_shard_is_refused(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model")
    index = {"weight_map": {"w": "model-00001-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(InputError, match="00001-of-00002"):
        weights.inspect(folder)


def test_only_whole_checkpoints_are_resumed_from(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    state.prepare(folder, "job", resume=True)
    assert state.newest(folder) is None
    for step in (9, 10, 11):
        (folder / f"checkpoint-{step}").mkdir()
    assert state.newest(folder) is None
    state.mark(folder / "checkpoint-9")
    assert state.newest(folder) == folder / "checkpoint-9"
    assert not (folder / "checkpoint-11").exists()
    (folder / "checkpoint-10").mkdir()
    state.mark(folder / "checkpoint-10")
    assert state.steps_of(state.newest(folder)) == 10


@pytest.mark.parametrize(("owner", "resume", "kept"), [("job", True, 4), ("other", True, 0),
                                                        ("job", False, 0)])  # fmt: skip
def test_another_jobs_checkpoints_are_cleared(
    tmp_path: Path, owner: str, resume: bool, kept: int
) -> None:
    folder = tmp_path / "state"
    state.prepare(folder, "job", resume=True)
    (folder / "checkpoint-4").mkdir()
    state.mark(folder / "checkpoint-4")
    state.prepare(folder, owner, resume=resume)
    assert state.steps_of(state.newest(folder)) == kept


@given(
    total=st.integers(1, 500),
    ratio=st.floats(0.0, 0.9),
    kind=st.sampled_from(["cosine", "linear", "constant"]),
)
def test_no_step_is_wasted_on_a_rate_of_zero(total: int, ratio: float, kind) -> None:
    shares = [learning_rate_share(step, total, ratio, kind) for step in range(total)]
    assert all(0.0 < share <= 1.0 for share in shares)
    peak = shares.index(max(shares))
    assert max(shares) == 1.0
    assert peak == int(ratio * total)
    assert shares[: peak + 1] == sorted(shares[: peak + 1])
    assert shares[peak:] == sorted(shares[peak:], reverse=True)


def test_one_process_needs_no_torchrun(job: TrainingJob) -> None:
    assert "torch.distributed.run" not in command(job, "job.json")
    two = job.model_copy(update={"settings": TrainingConfig(nproc=2)})
    assert command(two, "job.json")[-1] == "job.json"
    assert "torch.distributed.run" in command(two, "job.json")


def test_a_process_whose_launcher_is_gone_ends() -> None:
    """Also where it has nothing to print, which a closed pipe would stop."""
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    code = "import time; from exsearch.training.main import _end_with_launcher as watch; watch();"
    left = subprocess.run(
        [sys.executable, "-c", code + "time.sleep(100)"],
        env={**os.environ, LAUNCHER: str(gone.pid)},
        timeout=90,
    )
    assert left.returncode == 1
