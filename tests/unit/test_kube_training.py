"""Where a step trains, and what it refuses before any pod is made."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NoReturn

import numpy
import pytest
from safetensors.numpy import save_file

from exsearch import storage
from exsearch.config import RunConfig
from exsearch.errors import ExSearchError, InputError
from exsearch.kube import training
from exsearch.kube.client import Api
from exsearch.kube.training import launch_training, listener
from exsearch.training.job import ExampleCounts, TrainingJob, TrainingResult, read_job

pytestmark = pytest.mark.unit


@pytest.fixture
def job(tmp_path: Path) -> TrainingJob:
    examples = tmp_path / "examples.jsonl"
    examples.write_text("one\n")
    model = tmp_path / "model"
    model.mkdir()
    for name in ("config.json", "tokenizer.json"):
        (model / name).write_text("{}")
    save_file({"w": numpy.zeros(2)}, model / "model.safetensors")
    return TrainingJob(model=str(model), examples=str(examples), output=str(tmp_path / "out"))


def config(mount: Path | str, **more: Any) -> RunConfig:
    place = {"mount": str(mount), **more}
    cluster = {"training": {"launcher": "pytorchjob"}, "storage": place}
    return RunConfig.model_validate({"run": f"{mount}/runs/a", "cluster": cluster})


def finish_it(job: TrainingJob) -> TrainingResult:
    result = TrainingResult(
        checkpoint=job.checkpoint, fingerprint=job.fingerprint(), steps=1,
        examples=ExampleCounts(used=1), loss_first=1.0, loss_last=0.5, tokens=9, seconds=1.0,
    )  # fmt: skip
    Path(job.checkpoint).mkdir(parents=True)
    storage.write_json(f"{job.output}/result.json", result.model_dump())
    return result


@pytest.fixture
def no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> NoReturn:
        raise AssertionError("the cluster was asked")

    monkeypatch.setattr(Api, "open", refuse)


@pytest.mark.usefixtures("no_cluster")
def test_a_finished_training_asks_nothing_of_the_cluster(job: TrainingJob, tmp_path: Path) -> None:
    result = finish_it(job)
    assert launch_training(job, config(tmp_path), "align") == result


@pytest.mark.usefixtures("no_cluster")
@pytest.mark.parametrize(
    ("place", "words"),
    [
        ({"mount": "/elsewhere"}, "see the volume at /elsewhere only"),
        ({"claim": ""}, "set cluster.storage.claim"),
    ],
)
def test_files_that_pods_cannot_see_are_refused(
    job: TrainingJob, tmp_path: Path, place: dict[str, str], words: str
) -> None:
    with pytest.raises(InputError, match=words):
        launch_training(job, config(**{"mount": tmp_path, **place}), "align")


@pytest.mark.parametrize("shared", [True, False])
def test_the_pods_result_is_read_from_the_volume(
    job: TrainingJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shared: bool
) -> None:
    async def pods(*_: object) -> None:
        assert read_job(f"{job.output}/job.json") == job
        if shared:
            finish_it(job)

    monkeypatch.setattr(training, "_run", pods)
    if shared:
        assert launch_training(job, config(tmp_path), "align").steps == 1
    else:
        with pytest.raises(ExSearchError, match="another volume than this one's"):
            launch_training(job, config(tmp_path), "align")


def test_the_log_becomes_events_and_an_error_is_raised() -> None:
    told: list[dict[str, Any]] = []
    hear = listener(told.append)
    for line in ("loading", '{"event": "step", "step": 1}', '{"event": cut short', "{}"):
        hear(line)
    assert told == [{"event": "step", "step": 1}]
    for given, kind in ((True, InputError), (False, ExSearchError)):
        with pytest.raises(ExSearchError, match="disk") as caught:
            hear(f'{{"event": "error", "message": "disk", "input": {str(given).lower()}}}')
        assert type(caught.value) is kind
