"""The agent's manifests: predictor and sidecar fit together, in both of KServe's modes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from typing import Any

import pytest
import yaml
from kube_api.pod_security import violations
from manifest_checks import (
    MANIFESTS,
    OVERLAYS,
    Object,
    agent_metrics,
    agent_pod,
    build,
    metrics_of,
    named,
    run_of,
    tool,
    wrongs,
)

from exsearch import config
from exsearch.kube.deploy import storage_uri
from exsearch.kube.serving import splits_traffic

pytestmark = pytest.mark.manifests

EVERY = pytest.mark.parametrize("overlay", OVERLAYS)
GPU = "nvidia.com/gpu"


def predictor_and_sidecar(objects: list[Object]) -> tuple[Object, Object]:
    predictor, sidecar = agent_pod(objects)["spec"]["containers"]
    assert (predictor["name"], sidecar["name"]) == ("kserve-container", "retriever")
    return predictor, sidecar


def flags(container: Object) -> dict[str, str]:
    """Flags of a container's command; those of `--set` under their own names."""
    pairs = [word.removeprefix("--set=").removeprefix("--") for word in container["args"][1:]]
    return dict(pair.split("=", 1) for pair in pairs)


def seconds(container: Object) -> int:
    return container["lifecycle"]["preStop"]["sleep"]["seconds"]


@EVERY
def test_the_predictor_asks_the_sidecar_which_nobody_else_reaches(overlay: str) -> None:
    predictor, sidecar = predictor_and_sidecar(build(overlay))
    asked, heard = flags(predictor), flags(sidecar)
    assert heard["host"] == "127.0.0.1"
    assert asked["retrieval.url"] == f"http://127.0.0.1:{heard['port']}"
    # Knative takes one port in a pod, of one of two names.
    assert "ports" not in sidecar
    [port] = predictor["ports"]
    assert (port["name"], str(port["containerPort"])) == ("http1", asked["port"])
    assert asked["host"] == "0.0.0.0"
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert str(predictor[probe]["httpGet"]["port"]) == asked["port"]
    sets = [word.removeprefix("--set=") for word in predictor["args"] if "--set=" in word]
    config.load(MANIFESTS / "overlays" / overlay / "run.yaml", sets)


@EVERY
def test_the_first_model_is_the_runs_base_model(overlay: str) -> None:
    objects, run = build(overlay), run_of(overlay)
    service = named(objects, "InferenceService", run.cluster.deploy.name)
    model = service["spec"]["predictor"]["model"]
    assert model["storageUri"] == storage_uri(run.model.path, run.cluster.storage)
    runtime = named(objects, "ServingRuntime", model["runtime"])["spec"]
    [form] = runtime["supportedModelFormats"]
    assert form == {**model["modelFormat"], "autoSelect": False}
    assert model["protocolVersion"] in runtime["protocolVersions"]
    predictor, sidecar = predictor_and_sidecar(objects)
    mounts = {mount["mountPath"]: mount for mount in predictor["volumeMounts"]}
    assert mounts[flags(predictor)["model"]]["readOnly"] is True
    images = run.cluster.images
    assert (predictor["image"], sidecar["image"]) == (images.agent, images.retriever)


@EVERY
def test_the_sidecar_finds_index_and_checkpoint_read_only(overlay: str) -> None:
    objects, run = build(overlay), run_of(overlay)
    _, sidecar = predictor_and_sidecar(objects)
    given = flags(sidecar)
    paths = {
        given.get("index", run.retrieval.index),
        given.get("retrieval.checkpoint", run.retrieval.checkpoint),
    }
    mounts = [m["mountPath"] for m in sidecar["volumeMounts"] if m.get("readOnly")]
    for path in paths:
        assert any(path.startswith(f"{mount}/") for mount in mounts), path


@EVERY
def test_every_mount_has_its_volume(overlay: str) -> None:
    spec = agent_pod(build(overlay))["spec"]
    volumes = [volume["name"] for volume in spec["volumes"]]
    assert len(volumes) == len(set(volumes))
    used = {
        mount["name"]
        for container in (*spec["containers"], *spec["initContainers"])
        for mount in container["volumeMounts"]
    }
    assert used == set(volumes)


@EVERY
def test_the_predictor_finishes_before_its_sidecar_goes_and_both_before_they_are_killed(
    overlay: str,
) -> None:
    objects = build(overlay)
    predictor, sidecar = predictor_and_sidecar(objects)
    done = seconds(predictor) + run_of(overlay).serving.drain
    assert done < seconds(sidecar)
    grace = agent_pod(objects)["spec"]["terminationGracePeriodSeconds"]
    assert seconds(sidecar) + 10 < grace


@EVERY
def test_a_gpu_is_asked_for_where_the_overlay_has_them(overlay: str) -> None:
    objects, run = build(overlay), run_of(overlay)
    predictor, sidecar = predictor_and_sidecar(objects)
    asked = [predictor["resources"][kind].get(GPU) for kind in ("requests", "limits")]
    tolerated = {t["key"] for t in agent_pod(objects)["spec"].get("tolerations", [])}
    if run.cluster.rollout.gpus:
        assert asked == ["1", "1"]
        assert tolerated == {run.cluster.gpu}
    else:
        assert asked == [None, None]
        assert not tolerated
        assert run.model.dtype == "float32"
    assert GPU not in sidecar["resources"]["requests"]


def test_a_fetched_model_has_disk_enough() -> None:
    predictor, _ = predictor_and_sidecar(build("object-store"))
    assert predictor["resources"]["limits"]["ephemeral-storage"] == "60Gi"


class Answer(BaseHTTPRequestHandler):
    """Answers every request with one status."""

    status = 200

    def do_GET(self) -> None:
        self.send_response(self.status)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextmanager
def answering(status: int) -> Iterator[int]:
    """The port of a service that answers so."""
    handler = type("Handler", (Answer,), {"status": status})
    server = HTTPServer(("127.0.0.1", 0), handler)
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield server.server_port
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.parametrize("probe", ["startupProbe", "livenessProbe"])
def test_the_sidecars_probes_tell_well_from_ill_and_gone(probe: str) -> None:
    _, sidecar = predictor_and_sidecar(build("gpu"))
    python, option, text = sidecar[probe]["exec"]["command"]
    assert (python, option) == ("python", "-c")
    found = re.search(r"127\.0\.0\.1:(\d+).*timeout=(\d+)", text)
    assert found is not None
    assert found[1] == flags(sidecar)["port"]
    assert int(found[2]) < sidecar[probe]["timeoutSeconds"]

    def code(port: int) -> int:
        command = [sys.executable, "-c", text.replace(found[1], str(port))]
        return subprocess.run(command, capture_output=True, timeout=60, check=False).returncode

    with answering(200) as port:
        assert code(port) == 0
    assert code(port) != 0, "nobody listens any more"
    with answering(503) as port:
        assert code(port) != 0


def test_replicas_follow_the_questions_that_wait() -> None:
    objects, run = build("gpu"), run_of("gpu")
    service = named(objects, "InferenceService", "exsearch")
    assert service["metadata"]["annotations"]["serving.kserve.io/autoscalerClass"] == "keda"
    predictor = service["spec"]["predictor"]
    # KServe refuses this beside KEDA.
    assert "scaleMetric" not in predictor
    [metric] = predictor["autoScaling"]["metrics"]
    external = metric["external"]
    assert metrics_of(external["metric"]["query"]) <= agent_metrics()
    assert 0 < int(external["target"]["value"]) <= run.serving.concurrency
    assert predictor["minReplicas"] < predictor["maxReplicas"]


def test_the_laptop_has_a_fixed_number_of_replicas() -> None:
    service = named(build("laptop"), "InferenceService", "exsearch")
    annotations = service["metadata"]["annotations"]
    assert annotations["serving.kserve.io/autoscalerClass"] == "none"
    predictor = service["spec"]["predictor"]
    assert (predictor["minReplicas"], predictor["maxReplicas"]) == (1, 1)


@pytest.fixture(scope="module", params=["laptop", "gpu"])
def knative(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> list[Object]:
    """An overlay with the component `knative` on top."""
    folder = tmp_path_factory.mktemp("knative").resolve()

    def here(path: str) -> str:
        return os.path.relpath(MANIFESTS / path, folder)

    layer = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "namespace": "exsearch",
        "resources": [here(f"overlays/{request.param}")],
        "components": [here("components/knative")],
    }
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(layer), encoding="utf-8")
    command = [tool("kubectl"), "kustomize", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


def test_knative_gets_only_what_it_accepts(knative: list[Object]) -> None:
    spec = agent_pod(knative)["spec"]
    assert not violations(spec)
    refused = {"automountServiceAccountToken", "terminationGracePeriodSeconds"}
    assert not refused & set(spec)
    account = named(knative, "ServiceAccount", spec["serviceAccountName"])
    assert account["automountServiceAccountToken"] is False
    predictor, sidecar = spec["containers"]
    assert "lifecycle" not in predictor
    assert not {"lifecycle", "readinessProbe", "livenessProbe", "ports"} & set(sidecar)
    assert {"startupProbe", "readinessProbe", "livenessProbe"} <= set(predictor)


def test_knative_splits_traffic_and_counts_questions(knative: list[Object]) -> None:
    service = named(knative, "InferenceService", "exsearch")
    assert splits_traffic(service)
    assert not splits_traffic(named(build("gpu"), "InferenceService", "exsearch"))
    annotations = service["metadata"]["annotations"]
    assert annotations["serving.kserve.io/enable-tag-routing"] == "true"
    assert "serving.kserve.io/autoscalerClass" not in annotations
    predictor, run = service["spec"]["predictor"], run_of("laptop")
    assert "autoScaling" not in predictor
    assert predictor["scaleMetric"] == "concurrency"
    assert predictor["scaleTarget"] <= run.serving.concurrency
    assert predictor["timeout"] > run.serving.deadline


def test_knative_follows_the_crds(knative: list[Object]) -> None:
    for kind in ("ServingRuntime", "InferenceService"):
        assert wrongs(named(knative, kind, "exsearch")) == []
