"""The agent's pod as the manifests describe it, started as processes: real ColBERT, real vLLM."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import openai
import pytest
import yaml
from agent_pod import Pod, agent
from manifest_checks import ALERTS
from retrieval_parts import SILENT
from tiny_model import AGENT

from exsearch import config as settings
from exsearch.config import RetrievalConfig
from exsearch.operator.canary import Figures, measure
from exsearch.retrieval import Encoder, build_index
from exsearch.retrieval.encoder import demo_folder
from exsearch.serving.sidecar import free_port

pytestmark = pytest.mark.serving

CHAT = "/openai/v1/chat/completions"


@dataclass(frozen=True)
class Run:
    """What the pod serves."""

    model: Path
    claim: Path
    change: dict[str, dict[str, object]]
    questions: list[str]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Run:
    """A tiny model and an index over the tiny world; or, where EXSEARCH_RUN names a finished
    run (`make demo`'s), that run's champion and index."""
    if folder := os.environ.get("EXSEARCH_RUN"):
        return _finished_run(Path(folder))
    tiny_models, world = (request.getfixturevalue(n) for n in ("tiny_models", "tiny_world"))
    folder = tmp_path_factory.mktemp("claim")
    config = RetrievalConfig(checkpoint=str(demo_folder()), doc_maxlen=64)
    encoder = Encoder(config.checkpoint, config)
    passages = list(world.passages)
    build_index(passages, folder / "index", config, encoder=encoder, display=SILENT)
    change: dict[str, dict[str, object]] = {
        "model": {"max_tokens": 1024},
        "retrieval": {"checkpoint": config.checkpoint, "index": str(folder / "index")},
        "agent": AGENT,
        "policy": {"cpu_kv_gib": 1, "max_sequences": 16},
    }
    asked = [q.question for q in world.questions["warmup"]]
    return Run(Path(tiny_models[1]), folder, change, asked)


def _finished_run(folder: Path) -> Run:
    made = settings.load(folder / "run.yaml")
    change = made.model_dump(mode="json", include={"model", "retrieval", "agent", "policy"})
    checkpoint = Path(made.retrieval.checkpoint)
    change["retrieval"] |= {
        "index": str((folder / "index").resolve()),
        "checkpoint": str(checkpoint.resolve() if checkpoint.is_dir() else checkpoint),
    }
    model = Path(json.loads((folder / "summary.json").read_text())["champion"]).resolve()
    lines = (folder / "questions.jsonl").read_text().splitlines()
    return Run(model, folder.resolve(), change, [json.loads(line)["question"] for line in lines])


@pytest.fixture(scope="module")
def pod(tmp_path_factory: pytest.TempPathFactory, run: Run) -> Iterator[Pod]:
    """The laptop overlay's agent."""
    mounts = {"/mnt/models": run.model, "/mnt/exsearch": run.claim}
    change = {**run.change, "serving": {"drain": 20, "probe": 1}}
    with agent("laptop", tmp_path_factory.mktemp("pod"), mounts, change) as running:
        for name in running.containers:
            running.await_probe(name, "startupProbe")
        yield running


@pytest.fixture(scope="module")
def ask(pod: Pod, run: Run) -> dict[str, object]:
    """A request that the model answers (some questions are beyond a small one)."""
    for question in run.questions:
        messages = [{"role": "user", "content": question}]
        body = {"model": "exsearch", "messages": messages}
        if httpx.post(pod.url + CHAT, json=body, timeout=60).status_code == 200:
            return body
    pytest.fail("the model answers none of its questions")


def test_probes_say_ready_and_alive(pod: Pod) -> None:
    for name, kind in (
        ("kserve-container", "readinessProbe"),
        ("kserve-container", "livenessProbe"),
        ("retriever", "livenessProbe"),
    ):
        assert pod.probe(name, kind), (name, kind)


def test_the_official_client_sync_async_and_streamed(pod: Pod, ask) -> None:
    address = {"base_url": pod.url + "/openai/v1", "api_key": "none", "max_retries": 0}
    client = openai.OpenAI(**address)
    whole = client.chat.completions.create(**ask)
    answer = whole.choices[0].message.content
    assert answer
    assert whole.exsearch["steps"][0]["passages"]
    chunks = list(client.chat.completions.create(**ask, stream=True))
    assert "".join(c.choices[0].delta.content or "" for c in chunks) == answer
    kinds = [c.exsearch["event"]["kind"] for c in chunks if "event" in getattr(c, "exsearch", {})]
    assert kinds[:3] == ["query", "passages", "kept"]

    async def later() -> str | None:
        async with openai.AsyncOpenAI(**address) as other:
            told = await other.chat.completions.create(**ask)
            return told.choices[0].message.content

    assert asyncio.run(later()) == answer


async def test_kserves_client(pod: Pod, ask) -> None:
    from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig

    question = ask["messages"][0]["content"]
    v1 = InferenceRESTClient(RESTConfig(protocol="v1", timeout=60))
    told = await v1.infer(pod.url, {"instances": [question] * 3}, model_name="exsearch")
    [answer] = {p["answer"] for p in told["predictions"]}
    v2 = InferenceRESTClient(RESTConfig(protocol="v2", timeout=60))
    tensor = InferInput(name="question", shape=[1], datatype="BYTES", data=[question])
    request = InferRequest(model_name="exsearch", infer_inputs=[tensor])
    response = await v2.infer(pod.url, request, model_name="exsearch")
    assert response.outputs[0].data == [answer]


def test_curl(pod: Pod, ask) -> None:
    command = ["curl", "-sN", pod.url + CHAT, "-H", "content-type: application/json"]
    body = json.dumps({**ask, "stream": True})
    done = subprocess.run([*command, "-d", body], capture_output=True, text=True, timeout=60)
    assert done.stdout.startswith('data: {"id":')
    assert done.stdout.endswith("data: [DONE]\n\n")


def test_the_sidecar_speaks_three_shapes(pod: Pod) -> None:
    url = pod.retriever_url
    [row] = httpx.post(url + "/search", json={"queries": ["river"], "k": 3}).json()
    pids = [p["pid"] for p in row]
    # ColBERT's own server, and dspy.ColBERTv2, which reads `topk` of a GET.
    told = httpx.get(url + "/api/search", params={"query": "river", "k": 3}).json()
    assert [p["pid"] for p in told["topk"]] == pids
    assert {"rank", "score", "prob", "text"} <= told["topk"][0].keys()
    body = {"queries": ["river"], "topk": 3, "return_scores": True}
    told = httpx.post(url + "/retrieve", json=body).json()
    assert [p["document"]["id"] for p in told["result"][0]] == pids


def test_answers_come_while_the_sidecar_restarts(pod: Pod, ask) -> None:
    retriever = pod.containers["retriever"]
    assert retriever.process is not None
    retriever.process.kill()
    retriever.process.wait()
    got: list[httpx.Response] = []
    asking = threading.Thread(
        target=lambda: got.append(httpx.post(pod.url + CHAT, json=ask, timeout=60))
    )
    asking.start()
    pod.await_probe("kserve-container", "readinessProbe", succeeds=False)
    assert pod.probe("kserve-container", "livenessProbe"), "a restart would not help"
    retriever.start()
    pod.await_probe("retriever", "startupProbe")
    asking.join(60)
    assert got[0].status_code == 200, got[0].text
    pod.await_probe("kserve-container", "readinessProbe")


@pytest.mark.skipif(shutil.which("prometheus") is None, reason="no prometheus on this machine")
def test_prometheus_scrapes_it_and_the_alert_fires(pod: Pod, ask, tmp_path: Path) -> None:
    """The project's own rules, only their waiting shortened; the sidecar dies under load."""
    url = _prometheus_settings(pod, tmp_path)
    command = [
        "prometheus",
        f"--config.file={tmp_path / 'prometheus.yaml'}",
        f"--storage.tsdb.path={tmp_path / 'data'}",
        f"--web.listen-address={url.removeprefix('http://')}",
    ]
    with (tmp_path / "log").open("wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log)
    done = threading.Event()

    def load() -> None:
        while not done.is_set():
            httpx.post(pod.url + CHAT, json=ask, timeout=60)

    loads = [threading.Thread(target=load) for _ in range(3)]
    retriever = pod.containers["retriever"]
    try:
        for thread in loads:
            thread.start()
        answered = 'sum(exsearch_agent_requests_total{code="200",route=~".*chat.*"}) > 5'
        _await(lambda: _query(url, answered))
        assert _query(url, "exsearch_agent_retriever_ready == 1")
        _figures_of_the_model(pod, url)
        # Before the first scrape nothing was there: that alert must go.
        _await(lambda: not _firing(url))
        assert retriever.process is not None
        retriever.process.kill()
        _await(lambda: "ExSearchAgentRetrieverDown" in _firing(url))
        retriever.start()
        _await(lambda: "ExSearchAgentRetrieverDown" not in _firing(url))
    finally:
        done.set()
        server.terminate()
        server.wait(20)
        for thread in loads:
            thread.join(60)


def _figures_of_the_model(pod: Pod, url: str) -> None:
    """The operator's own queries: of the pods that serve a model, and of no other's."""
    (model,) = httpx.get(pod.url + "/agent").json()["models"]

    async def ask(digest: str) -> Figures:
        async with httpx.AsyncClient() as http:
            return await measure(http, url, "exsearch", digest, 60)

    def measured(digest: str) -> Figures:
        return asyncio.run(ask(digest))

    # What grew is told by two scrapes, at the least.
    _await(lambda: measured(model["digest"]).requests > 1)
    ours, other = measured(model["digest"]), measured("another")
    assert ours.pods == 1
    assert ours.errors == 0
    assert 0 < ours.latency < 60
    assert (other.pods, other.requests) == (0, 0)


def _prometheus_settings(pod: Pod, folder: Path) -> str:
    rules = yaml.safe_load(ALERTS.read_text())["spec"]
    for group in rules["groups"]:
        group["rules"] = [r for r in group["rules"] if "Agent" in r["alert"]]
        for rule in group["rules"]:
            rule["for"] = "2s"
    rules["groups"] = [g for g in rules["groups"] if g["rules"]]
    assert rules["groups"]
    (folder / "rules.yaml").write_text(yaml.safe_dump(rules))
    target = {
        "targets": [pod.url.removeprefix("http://")],
        "labels": {"namespace": "exsearch", "container": "kserve-container", "pod": "agent-0"},
    }
    settings = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(folder / "rules.yaml")],
        "scrape_configs": [{"job_name": "exsearch/exsearch-agent", "static_configs": [target]}],
    }
    (folder / "prometheus.yaml").write_text(yaml.safe_dump(settings))
    return f"http://127.0.0.1:{free_port()}"


def _query(url: str, text: str) -> list[object]:
    try:
        answer = httpx.get(url + "/api/v1/query", params={"query": text})
    except httpx.TransportError:
        return []
    if answer.status_code != 200:  # it is still starting
        return []
    return answer.json()["data"]["result"]


def _firing(url: str) -> set[str]:
    alerts = httpx.get(url + "/api/v1/alerts").json()["data"]["alerts"]
    return {a["labels"]["alertname"] for a in alerts if a["state"] == "firing"}


def _await(true, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.3)


def test_sigterm_under_load_ends_the_pod_in_order(pod: Pod, ask) -> None:
    """Last: every open request gets a status, every container ends by itself, nothing stays."""
    got: list[int | str] = []

    def post() -> None:
        try:
            got.append(httpx.post(pod.url + CHAT, json=ask, timeout=60).status_code)
        except httpx.TransportError as error:
            got.append(type(error).__name__)

    threads = [threading.Thread(target=post) for _ in range(12)]
    for thread in threads:
        thread.start()
    time.sleep(0.3)
    agent_process = pod.containers["kserve-container"].process
    assert agent_process is not None
    agent_process.send_signal(signal.SIGTERM)
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert set(got) <= {200, 503}, pod.containers["kserve-container"].said()
    assert got.count(200) >= 1
    assert pod.terminate() == {"kserve-container": 0, "retriever": 0}
    assert "Traceback" not in pod.containers["kserve-container"].said()
