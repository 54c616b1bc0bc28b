"""Indexes and training on an object store: pods come and go, the URL keeps what is finished.

Each try has a scratch folder of its own, as each pod has.
"""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import fsspec
import object_store
import pytest

from exsearch.config import RetrievalConfig
from exsearch.errors import InputError, StorageError
from exsearch.retrieval import Encoder
from exsearch.storage import exists, identity, join

TINY = {"epochs": 8, "save_steps": 2}


@pytest.fixture(scope="module")
def s3() -> Iterator[dict[str, str]]:
    """The environment of one S3 server for all tests here: fsspec keeps its clients."""
    with object_store.serve_s3() as environment:
        yield environment


@pytest.fixture
def store(s3: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of an empty bucket."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    for name, value in s3.items():
        monkeypatch.setenv(name, value)
    bucket = f"bucket-{secrets.token_hex(4)}"
    fsspec.filesystem("s3").mkdir(bucket)
    return f"s3://{bucket}"


@pytest.fixture
def pod(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Go on as another pod: with an empty scratch folder."""

    def become(name: str) -> Path:
        scratch = tmp_path / "scratch" / name
        monkeypatch.setenv("EXSEARCH_SCRATCH", str(scratch))
        return scratch

    become("first")
    return become


def upload(folder: Path, url: str) -> None:
    fs, key = fsspec.url_to_fs(url)
    files = [path for path in folder.rglob("*") if path.is_file()]
    for file in files:
        fs.put_file(str(file), f"{key}/{file.relative_to(folder)}")


def files_at(url: str) -> set[str]:
    """All files below a URL, relative to it."""
    fs, key = fsspec.url_to_fs(url, use_listings_cache=False)
    start = len(fs._strip_protocol(key)) + 1
    return {name[start:] for name in fs.find(key)}


def until(condition: Callable[[], bool], seconds: float = 120.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


# --- training


def job_at(store: str, world: Path, **options: object):
    from training_world import make_job

    upload(world, join(store, "world"))
    return make_job(world, world / "out", **options).model_copy(
        update={
            "model": join(store, "world/model"),
            "examples": join(store, "world/examples.jsonl"),
            "output": join(store, "runs/train"),
        }
    )


def assert_trained_alike(checkpoint: str, world: Path, where: Path, **options: object) -> None:
    """The model at a URL is the one that an undisturbed run on a disk makes."""
    import torch
    from training_world import make_job, weights_of

    from exsearch import mirror
    from exsearch.training.plan import plan
    from exsearch.training.run import run

    job = make_job(world, where, **options)
    expected = run(job, plan(job), job.fingerprint())
    found = weights_of(mirror.local(checkpoint))
    for name, tensor in weights_of(expected.checkpoint).items():
        torch.testing.assert_close(found[name], tensor, rtol=0, atol=1e-5, msg=name)


@pytest.mark.training
def test_a_killed_training_goes_on_from_the_store(
    store: str, pod: Callable[[str], Path], tmp_path: Path
) -> None:
    from training_world import make_world

    from exsearch.errors import ExSearchError
    from exsearch.training.launch import Event, launch

    world = make_world(tmp_path / "world")
    job = job_at(store, world, **TINY)
    first = pod("first")

    def kill(event: Event) -> None:
        if event["event"] == "step" and event["step"] == 7:
            children = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text()
            for child in children.split():
                if b"exsearch.training.main" in Path(f"/proc/{child}/cmdline").read_bytes():
                    os.kill(int(child), signal.SIGKILL)

    with pytest.raises(ExSearchError, match="exit code -9"):
        launch(job, on_progress=kill)
    assert exists(join(job.output, "state/checkpoint-6/whole"))
    assert not exists(join(job.output, "state/checkpoint-4"))

    second = pod("second")
    starts: list[int] = []
    result = launch(job, on_progress=lambda event: starts.append(event.get("step", -1)))
    assert starts[0] >= 6, "it did not resume"
    assert result.steps == 20
    assert result.checkpoint == job.checkpoint
    assert {name.split("/")[0] for name in files_at(job.output)} == {
        "job.json", "log.jsonl", "curves.png", "result.json", "checkpoint",
    }  # fmt: skip
    assert launch(job, on_progress=lambda _: pytest.fail("it ran again")) == result
    assert_trained_alike(result.checkpoint, world, tmp_path / "whole", **TINY)
    for scratch in (first, second):
        held = {path.name for path in scratch.iterdir() if path.is_dir()} - {"copies"}
        assert len(held) <= (scratch == first), "a finished run leaves its scratch space empty"


@pytest.mark.training
@pytest.mark.timeout(900)
def test_nodes_that_share_nothing_but_the_store(
    store: str, pod: Callable[[str], Path], tmp_path: Path
) -> None:
    """Two nodes with ZeRO-3, a file per rank; both are lost and two others take over."""
    from training_world import make_world

    from exsearch.storage import read_json, write_atomic

    world = make_world(tmp_path / "world")
    job = job_at(store, world, zero_stage=3, **TINY)
    write_atomic(join(job.output, "job.json"), job.model_dump_json())

    def start(name: str, port: int) -> list[subprocess.Popen[str]]:
        return [node(name, number, port) for number in (0, 1)]

    def node(name: str, number: int, port: int) -> subprocess.Popen[str]:
        pod(f"{name}-{number}")
        flags = f"--nnodes=2 --node-rank={number} --nproc-per-node=1 --max-restarts=0"
        meeting = f"--master-addr=127.0.0.1 --master-port={port} --local-addr=127.0.0.1"
        return subprocess.Popen(
            [sys.executable, "-m", "torch.distributed.run", *flags.split(), *meeting.split(),
             "-m", "exsearch.training.main", join(job.output, "job.json")],
            env={**os.environ, "GLOO_SOCKET_IFNAME": "lo", "PYTHONUNBUFFERED": "1"},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
        )  # fmt: skip

    nodes = start("lost", free_port())
    try:
        assert nodes[0].stdout is not None
        said = []
        for line in nodes[0].stdout:
            said.append(line)
            if '"step": 7' in line:
                break
        else:
            pytest.fail("".join(said[-40:]))
    finally:
        for each in nodes:
            os.killpg(each.pid, signal.SIGKILL)
            each.wait()
    at_store = files_at(join(job.output, "state"))
    for rank in (0, 1):
        assert any(f"zero_pp_rank_{rank}_" in name and "optim" in name for name in at_store)

    nodes = start("next", free_port())
    told = [each.communicate(timeout=400)[0] for each in nodes]
    assert [each.returncode for each in nodes] == [0, 0], told[0][-3000:] + told[1][-3000:]
    assert '"event": "start", "step": 6' in told[0] or '"event": "start", "step": 8' in told[0]
    assert read_json(join(job.output, "result.json"))["steps"] == 20
    assert not exists(join(job.output, "state"))
    assert_trained_alike(job.checkpoint, world, tmp_path / "whole", **TINY)


def free_port() -> int:
    import socket

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


# --- the index

BUILD = """
import sys
from retrieval_parts import corpus, SILENT
from exsearch.config import RetrievalConfig
from exsearch.retrieval import build_index
build_index(corpus(), sys.argv[2], RetrievalConfig.model_validate_json(sys.argv[1]), display=SILENT)
"""


@pytest.mark.retrieval
@pytest.mark.timeout(600)
def test_an_index_built_by_pods_that_come_and_go(
    store: str,
    pod: Callable[[str], Path],
    index: Path,
    config: RetrievalConfig,
    encoder: Encoder,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Killed while encoding and while uploading, it ends in the bytes of one built on a disk."""
    from retrieval_parts import SILENT, corpus, digests

    from exsearch import mirror
    from exsearch.retrieval import build_index, encode_part, merge
    from exsearch.retrieval.info import IndexInfo

    target, shards = join(store, "index"), join(store, "index.partial/shards")
    with pytest.raises(InputError, match="nothing to merge"):
        merge(target, config, SILENT)
    parts = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    process = subprocess.Popen(
        [sys.executable, "-c", BUILD, config.model_dump_json(), target],
        env={**os.environ, "PYTHONPATH": parts, "HF_HUB_OFFLINE": "1"},
    )
    try:
        until(lambda: process.poll() is not None or exists(join(shards, "00001.json")))
    finally:
        process.kill()
        process.wait()
    done = {name for name in files_at(shards) if name.endswith(".json")}
    before = {name: identity(join(shards, name)) for name in done}
    assert len(done) >= 2

    encoded = 0
    for number in (0, 1):
        pod(f"encoding-{number}")
        part = (number, 2)
        encoded += encode_part(corpus(), target, config, part, encoder=encoder, display=SILENT)
    assert encoded == 6 - len(done)
    assert {name: identity(join(shards, name)) for name in done} == before, "encoded twice"

    pod("cut-off")
    upload_one = mirror._upload

    def cut_off(source: Path, url: str) -> None:
        if source.name == "passages.jsonl":
            raise StorageError("the store is gone")
        upload_one(source, url)

    with monkeypatch.context() as patch:
        patch.setattr(mirror, "_upload", cut_off)
        with pytest.raises(StorageError, match="the store is gone"):
            merge(target, config, SILENT)
    assert files_at(target), "part of it is there"
    with pytest.raises(StorageError, match="is no index"):
        IndexInfo.load(target)

    pod("last")
    info = build_index(corpus(), target, config, encoder=encoder, display=SILENT)
    assert IndexInfo.load(target) == info == IndexInfo.load(index)
    assert digests(Path(mirror.local(target))) == digests(index)
    assert not exists(join(store, "index.partial"))
    assert build_index(corpus(), target, config, encoder=encoder, display=SILENT) == info
    with pytest.raises(InputError, match="another corpus"):
        build_index(corpus(10), target, config, encoder=encoder, display=SILENT)


# --- all of it


@pytest.mark.pipeline
def test_a_whole_pipeline_in_a_bucket(
    store: str, tmp_path: Path, tiny_models: tuple[str, str], world_files: Path
) -> None:
    """Corpus, questions, models, index, runs and the champion's record: nothing is elsewhere."""
    from cli_process import run, settings
    from test_loop import TRAINING

    from exsearch.retrieval.encoder import demo_folder
    from exsearch.storage import read_json

    upload(world_files, join(store, "data"))
    upload(Path(tiny_models[1]), join(store, "models/base"))
    upload(demo_folder(), join(store, "models/colbert"))
    config = settings(
        tmp_path, Path("unused"), join(store, "models/base"), "",
        data={n: [join(store, f"data/{n}.jsonl")] for n in ("warmup", "train", "test")}
        | {"corpus": join(store, "data/corpus.jsonl")},
        retrieval={"checkpoint": join(store, "models/colbert"), "doc_maxlen": 64},
        weighing={"min_answer_probability": 0.0},
        sft=TRAINING, align=TRAINING,
        em={"iterations": 1},
        gate={"margin": -1.0, "max_recall_loss": 1.0},
        pipeline={"rollout_shards": 2},
    )  # fmt: skip
    done = run("pipeline", "run", "--local", "-c", str(config), "--root", store, cwd=tmp_path)
    assert done.code == 0, done.err[-3000:]
    record = read_json(join(store, "champion.json"))
    assert record["current"]["model"] == join(store, "runs/local/iter-01/train/checkpoint")
    left = files_at(join(store, "runs/local"))
    assert {"summary.json", "report.html", "outcome.json", "iter-01/weights.jsonl"} <= left
    assert "iter-01/train/checkpoint/model.safetensors" in left
    assert any(name.endswith("exsearch.json") for name in files_at(join(store, "indexes")))
    assert not (tmp_path / "runs").exists(), "nothing is kept here"
