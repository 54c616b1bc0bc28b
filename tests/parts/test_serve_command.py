"""`exsearch serve --run RUN` on a laptop: one command, the retriever beside it included."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from retrieval_parts import SILENT
from tiny_model import AGENT

from exsearch import config as settings
from exsearch.config import RetrievalConfig
from exsearch.retrieval import Encoder, build_index
from exsearch.retrieval.encoder import demo_folder
from exsearch.serving.sidecar import free_port

pytestmark = [
    pytest.mark.serving,
    pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds the retriever in /proc"),
]

CHAT = "/openai/v1/chat/completions"
EXSEARCH = str(Path(sys.executable).with_name("exsearch"))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny_models, tiny_world) -> Path:
    """A finished run: settings, an index, a summary that names its champion."""
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    retrieval = RetrievalConfig(checkpoint=str(demo_folder()), doc_maxlen=64)
    encoder = Encoder(retrieval.checkpoint, retrieval)
    passages = list(tiny_world.passages)
    build_index(passages, folder / "index", retrieval, encoder=encoder, display=SILENT)
    (folder / "summary.json").write_text(json.dumps({"champion": tiny_models[1]}))
    tree = {
        "model": {"path": "no/such/model", "dtype": "float32", "max_tokens": 1024},
        "retrieval": {"checkpoint": retrieval.checkpoint, "doc_maxlen": 64},
        "agent": AGENT,
        "policy": {"kind": "transformers"},
        "serving": {
            "drain": 5,
            "probe": 0.5,
            "log_format": "json",
            "learning": {"folder": str(folder / "use")},
        },
    }
    (folder / "run.yaml").write_text(settings.dump(settings.RunConfig.model_validate(tree)))
    return folder


@pytest.fixture
def served(run: Path) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    port = free_port()
    process = subprocess.Popen(
        [EXSEARCH, "serve", "--run", str(run), "--port", str(port)],
        stderr=subprocess.PIPE,
        text=True,
    )
    url = f"http://127.0.0.1:{port}"
    try:
        await_status(url, 200, process)
        yield url, process
    finally:
        if process.poll() is None:
            retrievers = children(process)
            process.kill()
            process.wait()
            end = time.monotonic() + 20
            while any(runs(pid) for pid in retrievers):
                assert time.monotonic() < end, "the retriever outlived a killed predictor"
                time.sleep(0.1)


def await_status(
    url: str, status: int, process: subprocess.Popen[str], seconds: float = 90
) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        assert process.poll() is None, process.stderr and process.stderr.read()
        try:
            if httpx.get(url + "/v2/health/ready", timeout=5).status_code == status:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.2)
    pytest.fail(f"{url} never answered {status}")


def runs(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def children(process: subprocess.Popen[str]) -> list[int]:
    text = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
    return [int(pid) for pid in text.split()]


def test_one_command_serves_a_run(served, run: Path, tiny_world) -> None:
    url, process = served
    asked = [q.question for q in tiny_world.questions["warmup"]]
    told = httpx.post(
        url + "/v1/models/exsearch:predict", json={"instances": asked}, timeout=120
    ).json()["predictions"]
    [answered, *_] = [p for p in told if p["answer"]]

    said = {"request_id": answered["request_id"], "verdict": "up"}
    assert httpx.post(url + "/feedback", json=said).json() == {"kept": True}
    assert httpx.post(url + "/feedback", json={**said, "request_id": "x"}).status_code == 404
    from exsearch.data.questions import read_questions

    [learned] = read_questions(f"{run}/use/")
    assert learned.answers == (answered["answer"],)
    assert learned.question in asked

    [retriever] = children(process)
    os.kill(retriever, signal.SIGKILL)
    await_status(url, 503, process)
    await_status(url, 200, process)
    again = httpx.post(
        url + "/v1/models/exsearch:predict", json={"instances": [learned.question]}, timeout=60
    ).json()["predictions"]
    assert again[0]["answer"] == answered["answer"]

    [retriever] = children(process)
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 0
    assert not Path(f"/proc/{retriever}").exists(), "the retriever outlived its predictor"
    assert process.stderr is not None
    lines = process.stderr.read().splitlines()
    events = [json.loads(line) for line in lines if line.startswith("{")]
    names = {event["event"] for event in events}
    assert {"serving", "ready", "answered", "the retriever ended", "draining"} <= names
    assert not any(learned.question in line for line in lines), "a question is in the log"


def test_a_taken_port_is_a_clear_error(served, run: Path) -> None:
    url, _ = served
    port = url.rpartition(":")[2]
    done = subprocess.run(
        [EXSEARCH, "serve", "--run", str(run), "--port", port],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 1
    assert "port" in done.stderr
    assert "Traceback" not in done.stderr
