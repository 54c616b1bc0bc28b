"""What training refuses, before any work is done; and what it computes in."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import safetensors.torch
import torch
from training_world import make_job, make_world, weights_of

from exsearch.errors import ExSearchError, InputError, StorageError
from exsearch.mirror import Mirror
from exsearch.training import state
from exsearch.training.launch import launch
from exsearch.training.plan import plan
from exsearch.training.run import make_arguments, run

pytestmark = pytest.mark.training


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_world(tmp_path_factory.mktemp("world"))


def in_process(job):
    return run(job, plan(job), job.fingerprint())


@pytest.mark.parametrize(("dtype", "lowered"), [("float32", False), ("bfloat16", True)])
def test_a_cpu_computes_in_what_the_job_says(
    world: Path, tmp_path: Path, dtype: str, lowered: bool
) -> None:
    job = make_job(world, tmp_path).model_copy(update={"dtype": dtype})
    planned: Any = SimpleNamespace(mean_targets=1.0)
    assert make_arguments(job, planned, Mirror(job.output)).bf16 is lowered


def test_bfloat16_trains_almost_the_same_model(world: Path, tmp_path: Path) -> None:
    """Almost: not a bit less, or nothing was lowered; not far off, or something broke."""
    job = make_job(world, tmp_path / "plain")
    low = make_job(world, tmp_path / "low").model_copy(update={"dtype": "bfloat16"})
    plain, lowered = in_process(job), in_process(low)
    assert lowered.loss_first != plain.loss_first
    assert lowered.loss_first == pytest.approx(plain.loss_first, rel=0.01)
    assert lowered.loss_last == pytest.approx(plain.loss_last, rel=0.01)
    assert weights_of(lowered.checkpoint)["model.norm.weight"].dtype == torch.bfloat16


def test_too_many_frozen_layers_are_refused(world: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the model has 3 layers"):
        in_process(make_job(world, tmp_path, freeze_layers=4))


def test_an_unreadable_model_is_found_out_before_any_work(world: Path, tmp_path: Path) -> None:
    broken = tmp_path / "model"
    broken.mkdir()
    for file in (world / "model").iterdir():
        (broken / file.name).write_bytes(file.read_bytes())
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    job = make_job(world, tmp_path / "out").model_copy(update={"model": str(broken)})
    with pytest.raises(InputError, match="damaged or cut short"):
        launch(job)
    assert not (tmp_path / "out").exists()


def test_a_model_without_some_weights_is_refused(world: Path, tmp_path: Path) -> None:
    tensors = weights_of(world / "model")
    del tensors["model.norm.weight"]
    (tmp_path / "model").mkdir()
    for file in (world / "model").iterdir():
        (tmp_path / "model" / file.name).write_bytes(file.read_bytes())
    safetensors.torch.save_file(
        tensors, tmp_path / "model" / "model.safetensors", metadata={"format": "pt"}
    )
    job = make_job(world, tmp_path / "out")
    with pytest.raises(InputError, match=r"lacks 1 weights .* model\.norm\.weight"):
        in_process(job.model_copy(update={"model": str(tmp_path / "model")}))


def test_a_full_disk_is_found_out_before_any_work(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state, "bytes_needed", lambda *_: 1 << 60)
    with pytest.raises(StorageError, match="training needs about"):
        plan(make_job(world, tmp_path))
    assert not (tmp_path / "log.jsonl").exists()


def test_a_run_that_dies_says_its_last_words(world: Path, tmp_path: Path) -> None:
    job = make_job(world, tmp_path, learning_rate=1e30, epochs=4)
    with pytest.raises(ExSearchError, match=r"loss of step . is (nan|inf)"):
        launch(job, on_progress=lambda _: None)


def test_unusable_examples_stay_an_input_error(world: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"id": 3}\n')
    job = make_job(world, tmp_path / "out").model_copy(update={"examples": str(bad)})
    with pytest.raises(InputError, match=r"bad\.jsonl, line 1"):
        launch(job, on_progress=lambda _: None)
