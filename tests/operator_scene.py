"""What the tests of the operator share: a Kubeflow with runs, a Prometheus, an agent, a scene."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import kfp_server
from kube_api.cluster import Cluster
from kubernetes import client

from exsearch.operator.crd import definition

GROUP = ("exsearch.dev", "v1alpha1")
Object = dict[str, Any]


class KubeflowWithRuns(kfp_server.Kubeflow):
    """Kubeflow Pipelines that also lists the runs of a schedule."""

    def _routes(self) -> list[tuple[str, str, Callable[..., Any]]]:
        return [*super()._routes(), (r"/runs", "GET", self.list_runs)]

    def list_runs(self, *, query: Any, **_: Any) -> Any:
        (only,) = json.loads(query["filter"])["predicates"]
        assert only["key"] == "recurring_run_id"
        own = [r for r in self.runs.values() if r["recurring_run_id"] == only["stringValue"]]
        own.sort(key=lambda run: run["created_at"], reverse=True)
        return {"runs": own[: int(query["page_size"])]}

    def play_run(self, state: str, *, index: str = "") -> None:
        """The newest run of the only schedule, in this state.

        Args:
            index: state of its index step.
        """
        (recurring,) = self.recurring
        tasks = [{"display_name": "index", "state": index}] if index else []
        self.runs["run"] = {
            "run_id": "run",
            "display_name": "weekly 1",
            "recurring_run_id": recurring,
            "created_at": "2026-01-03T03:00:00Z",
            "scheduled_at": "2026-01-03T03:00:00Z",
            "finished_at": "2026-01-03T09:00:00Z" if state == "SUCCEEDED" else None,
            "state": state,
            "run_details": {"task_details": tasks},
        }


@contextmanager
def kubeflow_with_runs() -> Iterator[KubeflowWithRuns]:
    """A new one, on a free port of 127.0.0.1."""
    state = KubeflowWithRuns()
    with kfp_server.serving(state):
        yield state


class Prometheus:
    """Answers the operator's four queries; tests set the figures."""

    def __init__(self) -> None:
        self.url = ""
        self.requests, self.errors, self.latency = 0.0, 0.0, 1.0
        self.pods = 1.0
        self.away = False
        self.asked: list[str] = []

    def value(self, query: str) -> float:
        self.asked.append(query)
        if query.startswith("count("):
            return self.pods
        if "episode_seconds" in query:
            return self.latency
        return self.errors if "5.." in query else self.requests


@contextmanager
def prometheus() -> Iterator[Prometheus]:
    """Serve on a free port of 127.0.0.1."""
    state = Prometheus()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            query = parse_qs(urlsplit(self.path).query)["query"][0]
            self.send_response(503 if state.away else 200)
            self.end_headers()
            if not state.away:
                sample = {"metric": {}, "value": [time.time(), str(state.value(query))]}
                data = {"resultType": "vector", "result": [sample]}
                self.wfile.write(json.dumps({"status": "success", "data": data}).encode())

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def spec(kubeflow_url: str, **more: Any) -> Object:
    """The spec of a small agent."""
    data = {"corpus": "/mnt/exsearch/corpus.jsonl", "train": ["/mnt/exsearch/train.jsonl"]}
    return {
        "data": {**data, "test": ["/mnt/exsearch/test.jsonl"]},
        "model": {"path": "/mnt/exsearch/models/base"},
        "em": {"iterations": 1},
        "pipeline": {"host": kubeflow_url, "index_shards": 1, "rollout_shards": 1},
        **more,
    }


def promotion(name: str, run: str = "", em: float = 0.5) -> Object:
    """A promotion as the deploy step writes it."""
    return {
        "model": f"/mnt/exsearch/runs/{name}/model",
        "digest": f"digest-{name}",
        "run": run or f"/mnt/exsearch/runs/{name}",
        "promoted": 1.7e9,
        "reason": "it is better",
        "metrics": {"em": em},
        "withdrawn": "",
    }


@dataclass
class Agents:
    """The SearchAgents of a namespace, as a person handles them."""

    cluster: Cluster
    namespace: str

    def _api(self) -> client.CustomObjectsApi:
        return self.cluster.custom

    def create(self, name: str, spec: Object, annotations: Object | None = None) -> Object:
        body = {
            "apiVersion": "/".join(GROUP),
            "kind": "SearchAgent",
            "metadata": {"name": name, "annotations": annotations or {}},
            "spec": spec,
        }
        made: Any = self._api().create_namespaced_custom_object(
            *GROUP, self.namespace, "searchagents", body
        )
        return made

    def get(self, name: str) -> Object:
        found: Any = self._api().get_namespaced_custom_object(
            *GROUP, self.namespace, "searchagents", name
        )
        return found

    def patch(self, name: str, change: Object) -> None:
        self._api().patch_namespaced_custom_object(
            *GROUP, self.namespace, "searchagents", name, change
        )

    def annotate(self, name: str, **values: str | None) -> None:
        named = {f"exsearch.dev/{key}": value for key, value in values.items()}
        self.patch(name, {"metadata": {"annotations": named}})

    def delete(self, name: str) -> None:
        self._api().delete_namespaced_custom_object(*GROUP, self.namespace, "searchagents", name)

    def release(self) -> None:
        """Take every finalizer away: no operator is left that would."""
        found: Any = self._api().list_namespaced_custom_object(
            *GROUP, self.namespace, "searchagents"
        )
        for item in found["items"]:
            with suppress(client.ApiException):  # it is gone by now
                self.patch(item["metadata"]["name"], {"metadata": {"finalizers": None}})

    def service(self, name: str) -> Object:
        found: Any = self._api().get_namespaced_custom_object(
            "serving.kserve.io", "v1beta1", self.namespace, "inferenceservices", name
        )
        return found

    def served(self, name: str) -> tuple[str, int | None]:
        """Folder of the model that is served, and its share."""
        predictor = self.service(name)["spec"]["predictor"]
        uri: str = predictor["model"]["storageUri"]
        return uri.removeprefix("pvc://exsearch/"), predictor.get("canaryTrafficPercent")

    def config_map(self, name: str) -> Any:
        return self.cluster.core.read_namespaced_config_map(name, self.namespace)

    def meddle(self, plural: str, change: Object | None) -> None:
        """Change what belongs to the agent `bot` by hand; None: delete it."""
        if plural == "configmaps":
            core, name = self.cluster.core, "bot-run"
            if change is None:
                core.delete_namespaced_config_map(name, self.namespace)
            else:
                core.patch_namespaced_config_map(name, self.namespace, change)
            return
        version = "v1beta1" if plural == "inferenceservices" else "v1alpha1"
        where = ("serving.kserve.io", version, self.namespace, plural, "bot")
        if change is None:
            self._api().delete_namespaced_custom_object(*where)
        else:
            self._api().patch_namespaced_custom_object(*where, change)

    def parts(self) -> list[str]:
        """Kinds of the objects with the label of the agent `bot`, its claim left out."""
        label = {"label_selector": "exsearch.dev/agent=bot"}
        found = ["ConfigMap"] * len(
            self.cluster.core.list_namespaced_config_map(self.namespace, **label).items
        )
        for version, plural in (("v1alpha1", "servingruntimes"), ("v1beta1", "inferenceservices")):
            listed: Any = self._api().list_namespaced_custom_object(
                "serving.kserve.io", version, self.namespace, plural, **label
            )
            found += [plural] * len(listed["items"])
        return found

    def settled(self, name: str) -> None:
        """Wait until KServe has made the service as it is ready."""

        def ready() -> bool:
            service = self.service(name)
            status = service.get("status", {})
            newest = status.get("components", {}).get("predictor", {})
            return (
                status.get("observedGeneration") == service["metadata"]["generation"]
                and status["conditions"][1]["status"] == "True"
                and newest.get("latestReadyRevision") == newest.get("latestCreatedRevision")
            )

        wait_for(ready)

    def events(self, name: str) -> list[str]:
        """Reasons of the events about an agent."""
        found = self.cluster.core.list_namespaced_event(self.namespace).items
        return sorted(e.reason for e in found if e.involved_object.name == name)


def conditions(status: Object) -> dict[str, tuple[str, str]]:
    """Status and reason of each condition."""
    return {c["type"]: (c["status"], c["reason"]) for c in status.get("conditions", [])}


def wait_for(check: Callable[[], Any], seconds: float = 20.0) -> Any:
    """Wait until a check gives something true, and return it; lookups may fail meanwhile."""
    until = time.monotonic() + seconds
    last: object = None
    while time.monotonic() < until:
        try:
            last = check()
            if last:
                return last
        except (client.ApiException, KeyError) as error:
            last = error
        time.sleep(0.1)
    raise AssertionError(f"not within {seconds:.0f} s: {last}")


def install(cluster: Cluster) -> None:
    """Have the cluster serve SearchAgents; no harm where it does."""
    api = client.ApiextensionsV1Api(cluster.client())
    try:
        api.create_custom_resource_definition(definition())
    except client.ApiException as error:
        if error.status != 409:
            raise
    wait_for(lambda: cluster.custom.list_cluster_custom_object(*GROUP, "searchagents"))
