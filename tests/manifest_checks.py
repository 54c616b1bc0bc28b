"""What the tests of manifests share: building overlays, their pods, and the known metrics."""

from __future__ import annotations

import copy
import functools
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from itertools import chain
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from exsearch import config
from exsearch.config import RunConfig

Object = dict[str, Any]

ROOT = Path(__file__).resolve().parents[1]
MANIFESTS = ROOT / "manifests"
OVERLAYS = sorted(path.name for path in (MANIFESTS / "overlays").iterdir())
ALERTS = MANIFESTS / "components/monitoring/alerts.yaml"
DASHBOARD = MANIFESTS / "components/monitoring/dashboard.json"

SUPPORTED = ("1.33", "1.34", "1.35", "1.36")
"""Kubernetes releases that the manifests are for. The oldest is also the version that the
namespace's pod-security labels are pinned to."""

EXPORTED: dict[str, frozenset[str]] = {
    "Prometheus itself": frozenset({"up"}),
    "kube-state-metrics": frozenset({
        "kube_deployment_spec_replicas", "kube_namespace_created", "kube_pod_owner",
        "kube_pod_status_phase", "kube_replicaset_created", "kube_replicaset_spec_replicas",
    }),
    "training-operator": frozenset({
        "training_operator_jobs_created_total", "training_operator_jobs_failed_total",
        "training_operator_jobs_restarted_total", "training_operator_jobs_successful_total",
    }),
    "kubelet": frozenset({
        "kubelet_volume_stats_available_bytes", "kubelet_volume_stats_capacity_bytes",
        "kubelet_volume_stats_used_bytes",
    }),
    "cAdvisor": frozenset({
        "container_cpu_usage_seconds_total", "container_memory_working_set_bytes",
    }),
    "dcgm-exporter": frozenset({"DCGM_FI_DEV_FB_USED", "DCGM_FI_DEV_GPU_UTIL"}),
}  # fmt: skip
"""Metrics of others that rules and dashboard may use, by exporter, as their documentation
names them. Ours are read from the code (`retriever_metrics`, `agent_metrics`)."""

_NOT_METRICS = frozenset({
    "absent", "and", "avg", "by", "count", "histogram_quantile", "increase", "max",
    "max_over_time", "offset", "on", "or", "rate", "sum", "time", "unless",
})  # fmt: skip


def tool(name: str) -> str:
    """Path of a program that came with a Python package."""
    return str(Path(sys.executable).with_name(name))


@functools.cache
def _built(overlay: str) -> str:
    command = [tool("kubectl"), "kustomize", str(MANIFESTS / "overlays" / overlay)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{overlay}: {done.stderr}"
    assert not done.stderr, f"{overlay} warns: {done.stderr}"
    return done.stdout


def build(overlay: str) -> list[Object]:
    """The objects that `kubectl kustomize` makes of an overlay."""
    return list(yaml.safe_load_all(_built(overlay)))


def run_of(overlay: str) -> RunConfig:
    """The settings of an overlay's runs."""
    return config.load(MANIFESTS / "overlays" / overlay / "run.yaml")


def of_kind(objects: list[Object], kind: str) -> list[Object]:
    return [item for item in objects if item["kind"] == kind]


def named(objects: list[Object], kind: str, name: str) -> Object:
    """The one object of that kind and name."""
    [found] = [item for item in of_kind(objects, kind) if item["metadata"]["name"] == name]
    return found


def agent_pod(objects: list[Object], name: str = "exsearch") -> Object:
    """The pod template that KServe makes of the ServingRuntime and the InferenceService.

    As its Standard mode does it: the runtime's containers and volumes, the predictor's other
    fields, its own labels, and a volume's model mounted; a bucket's is fetched by an init
    container (`storage-initializer`), which is not the manifests' and is left out.
    """
    runtime = named(objects, "ServingRuntime", name)["spec"]
    service = named(objects, "InferenceService", name)
    predictor = copy.deepcopy(service["spec"]["predictor"])
    model = predictor.pop("model")
    for field in KSERVES_OWN & set(predictor):
        del predictor[field]
    pod = copy.deepcopy(
        {
            field: runtime[field]
            for field in ("containers", "volumes", "tolerations")
            if field in runtime
        }
    )
    mount: Object = {"mountPath": "/mnt/models", "readOnly": True}
    scheme, _, rest = model["storageUri"].partition("://")
    if scheme == "pvc":
        claim, _, path = rest.partition("/")
        mount |= {"name": "kserve-pvc-source", "subPath": path}
        volume = {"persistentVolumeClaim": {"claimName": claim}}
    else:
        mount |= {"name": "kserve-provision-location"}
        volume = {"emptyDir": {}}
    pod["volumes"].append({"name": mount["name"], **volume})
    pod["containers"][0]["volumeMounts"].append(mount)
    labels = {
        "app": f"isvc.{name}-predictor",
        "component": "predictor",
        "serving.kserve.io/inferenceservice": service["metadata"]["name"],
        **service["metadata"].get("labels", {}),
    }
    return {"metadata": {"labels": labels}, "spec": {**pod, **predictor}}


KSERVES_OWN = {
    "annotations", "autoScaling", "canaryTrafficPercent", "containerConcurrency",
    "deploymentStrategy", "labels", "maxReplicas", "minReplicas", "scaleMetric", "scaleTarget",
    "timeout",
}  # fmt: skip
"""Fields of a predictor that are none of its pod's."""


def title(item: Object) -> str:
    """`Kind/name`, for messages."""
    return f"{item['kind']}/{item['metadata']['name']}"


def containers(pod_spec: Object) -> Iterator[Object]:
    """Every container of a pod, those that run first included."""
    yield from pod_spec.get("initContainers", [])
    yield from pod_spec["containers"]


def selects(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """Whether a label selector (core/v1) matches; an empty one matches all."""
    for key, value in selector.get("matchLabels", {}).items():
        if labels.get(key) != value:
            return False
    for term in selector.get("matchExpressions", []):
        if term["operator"] != "Exists":
            raise NotImplementedError(f"operator {term['operator']} of a selector")
        if term["key"] not in labels:
            return False
    return True


def opens(rule_ports: list[Object] | None, port: int) -> bool:
    """Whether the ports of a NetworkPolicy's rule include one; none named means all."""
    return rule_ports is None or any(
        item["port"] <= port <= item.get("endPort", item["port"]) for item in rule_ports
    )


def alert_rules() -> list[Object]:
    """Every alert of the PrometheusRule."""
    groups = yaml.safe_load(ALERTS.read_text(encoding="utf-8"))["spec"]["groups"]
    return [rule for group in groups for rule in group["rules"]]


def panels() -> list[Object]:
    """The dashboard's panels that query something."""
    board = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    return [panel for panel in board["panels"] if panel["type"] != "row"]


def metrics_of(expression: str) -> set[str]:
    """Names of the metrics in a PromQL expression."""
    bare = re.sub(r'"[^"]*"', "", expression)
    bare = re.sub(r"\{[^}]*\}|\[[^\]]*\]", " ", bare)
    bare = re.sub(r"\b(by|on|ignoring|without)\s*\([^)]*\)", " ", bare)
    bare = re.sub(r"\boffset\s+\w+|\b\d\S*", " ", bare)
    return set(re.findall(r"[A-Za-z_:][\w:]*", bare)) - _NOT_METRICS


def retriever_metrics() -> set[str]:
    """Names of the series that the retriever exports, from its own registry."""
    from exsearch.retrieval.service_guard import Metrics

    metrics = Metrics()
    metrics.answered("/search", 200, 0.1)
    metrics.searched(1, [1])
    return _series(metrics.text())


def _series(text: bytes) -> set[str]:
    """Names of the series in a page of metrics."""
    lines = text.decode().splitlines()
    return {re.split(r"[{ ]", line)[0] for line in lines if line and not line.startswith("#")}


@functools.cache
def agent_metrics() -> frozenset[str]:
    """Names of the series that the predictor exports, from its own registry."""
    from exsearch.retrieval.client import ClientStats, RetrieverClient
    from exsearch.serving.metrics import Metrics

    metrics = Metrics()
    metrics.requests.labels("/agent", "200")
    metrics.request_seconds.labels("/agent")
    for counter in (metrics.tokens, metrics.failures, metrics.rejected, metrics.feedback):
        counter.labels("any")
    metrics.models.labels("champion", "digest")
    idle: Any = SimpleNamespace(waiting=0, running=0)
    well: Any = SimpleNamespace(engine=SimpleNamespace(ok=True), retriever=SimpleNamespace(ok=True))
    client = RetrieverClient.__new__(RetrieverClient)  # `__init__` would ask a live service.
    client.stats = ClientStats()
    metrics.follow(idle, [well], client)
    return frozenset(_series(metrics.text()))


def retriever_paths() -> set[str]:
    """Paths that the retriever's service answers at."""
    from exsearch.records import Passage
    from exsearch.retrieval.info import IndexInfo
    from exsearch.retrieval.service import create_app

    class Empty:
        digest = ""

        def search(self, queries: list[str], k: int) -> list[list[Passage]]:
            return [[] for _ in queries]

    info = IndexInfo(
        digest="", corpus="", checkpoint="", checkpoint_path="", passages=0, vectors=0,
        centroids=0, bytes=0, plan="", nbits=2, doc_maxlen=180, query_maxlen=32,
    )  # fmt: skip
    return {getattr(route, "path", "") for route in create_app(Empty(), info).routes}


def known_metrics() -> set[str]:
    """Every metric that rules and dashboard may use."""
    return retriever_metrics().union(agent_metrics(), *EXPORTED.values())


@functools.cache
def catalogue() -> Any:
    from kube_api.cluster import crd_folder
    from kube_api.resources import Catalogue, of_crd, read_crds

    folder = crd_folder()
    if folder is None:
        pytest.skip("no CRDs: set EXSEARCH_CRDS to a folder of CustomResourceDefinitions in YAML")
    crds = read_crds(folder, Path(tempfile.gettempdir()) / f"exsearch-crds-{Path.home().name}")
    return Catalogue(chain.from_iterable(of_crd(crd) for crd in crds))


def wrongs(item: Object) -> list[str]:
    """What a CRD's schema refuses of an object, unknown fields included."""
    from kube_api.schema import pruned, wrong_types, wrong_values

    resource = catalogue().kind(item["apiVersion"], item["kind"])
    assert resource is not None, f"no CRD serves {item['apiVersion']} {item['kind']}"
    body = {key: value for key, value in item.items() if key != "metadata"}
    unknown: list[str] = []
    pruned(body, resource.schema, "", unknown)
    types = [f"{path} is no {expected}" for path, expected, _ in wrong_types(body, resource.schema)]
    values = [str(cause) for cause in wrong_values(body, resource.schema)]
    return [*(f"unknown {path}" for path in unknown), *types, *values]
