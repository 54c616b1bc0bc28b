"""The SearchAgent definition on an API server: what it takes, what it refuses, in which words."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from kube_api.cluster import Cluster
from kubernetes.client import ApiException
from manifest_checks import MANIFESTS, ROOT, tool

from exsearch.operator.crd import GROUP, KIND, PLURAL, VERSION, definition

pytestmark = pytest.mark.kube

Object = dict[str, Any]
Kubectl = Callable[..., subprocess.CompletedProcess[str]]
EXAMPLES = sorted((ROOT / "examples").glob("searchagent-*.yaml"))
SPEC: Object = {
    "model": {"path": "/mnt/exsearch/models/base"},
    "data": {"corpus": "/mnt/exsearch/c.tsv", "train": ["train.jsonl"], "test": ["test.jsonl"]},
}


@pytest.fixture(scope="module")
def kubectl(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Kubectl:
    """The real kubectl as the administrator, on a cluster that serves SearchAgents."""
    home = tmp_path_factory.mktemp("home")
    environment = {**os.environ, "KUBECONFIG": str(cluster.kubeconfig()), "HOME": str(home)}

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [tool("kubectl"), *words], capture_output=True, text=True, check=False, timeout=120,
            env=environment,
        )  # fmt: skip

    file = str(MANIFESTS / "operator/base/crd.yaml")
    done = run("apply", "--server-side", "--validate=strict", "--filename", file)
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    waited = run("wait", "--for=condition=Established", "--timeout=60s", f"crd/{PLURAL}.{GROUP}")
    assert waited.returncode == 0, waited.stderr
    return run


def changed(spec: Object, changes: Object) -> Object:
    """A spec with other values at some paths; None takes a field out."""
    found = copy.deepcopy(spec)
    for path, value in changes.items():
        node, (*parents, leaf) = found, path.split(".")
        for name in parents:
            node = node.setdefault(name, {})
        if value is None:
            node.pop(leaf, None)
        else:
            node[leaf] = value
    return found


class Agents:
    """SearchAgents of one namespace, as the administrator."""

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        self._api = cluster.custom
        self._where = (GROUP, VERSION, namespace, PLURAL)

    def create(self, spec: Object, name: str = "agent", **more: Any) -> Object:
        body = {"apiVersion": f"{GROUP}/{VERSION}", "kind": KIND, "metadata": {"name": name},
                "spec": spec, **more}  # fmt: skip
        made: Any = self._api.create_namespaced_custom_object(*self._where, body)
        return made

    def get(self, name: str = "agent") -> Object:
        found: Any = self._api.get_namespaced_custom_object(*self._where, name)
        return found

    def listed(self) -> list[str]:
        found: Any = self._api.list_namespaced_custom_object(*self._where)
        return [item["metadata"]["name"] for item in found["items"]]

    def replace(self, spec: Object, name: str = "agent") -> Object:
        body = {**self.get(name), "spec": spec}
        done: Any = self._api.replace_namespaced_custom_object(*self._where, name, body)
        return done

    def patch(self, body: Object, name: str = "agent") -> Object:
        done: Any = self._api.patch_namespaced_custom_object(*self._where, name, body)
        return done

    def patch_status(self, status: Object, name: str = "agent") -> Object:
        done: Any = self._api.patch_namespaced_custom_object_status(
            *self._where, name, {"status": status}
        )
        return done

    def replace_status(self, body: Object, name: str = "agent") -> Object:
        done: Any = self._api.replace_namespaced_custom_object_status(*self._where, name, body)
        return done

    def delete(self, name: str = "agent") -> None:
        self._api.delete_namespaced_custom_object(*self._where, name)


@pytest.fixture
def agents(cluster: Cluster, kubectl: Kubectl, namespace: str) -> Agents:
    return Agents(cluster, namespace)


def causes(error: ApiException) -> list[tuple[str, str, str]]:
    """Field, reason and message of everything that a 422 names."""
    status = json.loads(error.body or "{}")
    assert (error.status, status["reason"]) == (422, "Invalid")
    return [(c["field"], c["reason"], c["message"]) for c in status["details"]["causes"]]


def test_the_operators_manifests_apply_without_a_warning_and_again(kubectl: Kubectl) -> None:
    folder = str(MANIFESTS / "operator/monitored")
    for _ in range(2):
        done = kubectl("apply", "--server-side", "--validate=strict", "--kustomize", folder)
        assert done.returncode == 0, done.stderr
        assert not done.stderr


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda path: path.stem)
def test_examples_are_taken_strictly(
    kubectl: Kubectl, namespace: str, file: Path, tmp_path: Path
) -> None:
    item = yaml.safe_load(file.read_text(encoding="utf-8"))
    item["metadata"]["namespace"] = namespace
    moved = tmp_path / "agent.yaml"
    moved.write_text(yaml.safe_dump(item), encoding="utf-8")
    for _ in range(2):
        done = kubectl("apply", "--server-side", "--validate=strict", "--filename", str(moved))
        assert done.returncode == 0, done.stderr
        assert not done.stderr


def test_few_defaults_are_written_into_the_resource(agents: Agents) -> None:
    made = agents.create(SPEC)
    assert made["spec"] == {**SPEC, "suspend": False, "history": 10, "on_delete": "Retain"}
    assert made["metadata"]["generation"] == 1


INVALID, REQUIRED, FORBIDDEN = "FieldValueInvalid", "FieldValueRequired", "FieldValueForbidden"
ELASTIC = {"cluster.training.launcher": "pytorchjob", "cluster.training.nodes": 2}
QUANTITY = "must be a quantity as Kubernetes writes them, such as 500m, 4 or 16Gi"
BAD: list[tuple[Object, str, str, str]] = [
    ({"model": None}, "model.path", REQUIRED, "model.path must name the model to start from"),
    ({"model.path": ""}, "model.path", REQUIRED, "model.path must name the model to start from"),
    ({"data.corpus": None}, "data.corpus", REQUIRED, "data.corpus must name the passages"),
    ({"data.train": []}, "data.train", REQUIRED, "data.train must name at least one question file"),
    ({"data.test": None}, "data.test", REQUIRED, "data.test must name at least one question file"),
    ({"data.test": ["train.jsonl"]}, "data.test", INVALID, "test may not name a file that train"),
    ({"pipeline.schedule.cron": "0 3 * * 6"}, "pipeline.schedule.cron", INVALID,
     "must have six fields, seconds first, such as '0 0 3 * * 6' for Saturdays at three"),
    ({"canary.prometheus": "prometheus:9090"}, "canary.prometheus", INVALID,
     "must be an http:// or https:// address"),
    ({"canary.percent": 100}, "canary.percent", INVALID, "should be less than or equal to 99"),
    ({"canary.max_latency": 0}, "canary.max_latency", INVALID, "should be greater than 0"),
    ({"history": 51}, "history", INVALID, "should be less than or equal to 50"),
    ({"cluster.training.nodes": 0}, "cluster.training.nodes", INVALID,
     "should be greater than or equal to 1"),
    ({"cluster.training.launcher": "trainjob", "cluster.training.elastic": {}},
     "cluster.training.elastic", INVALID, "elastic needs launcher pytorchjob"),
    ({"cluster.training.elastic": {}}, "cluster.training.elastic", INVALID,
     "elastic needs launcher pytorchjob"),
    ({**ELASTIC, "cluster.training.elastic": {"min_nodes": 3}}, "cluster.training.nodes", INVALID,
     "nodes must lie between elastic.min_nodes and elastic.max_nodes"),
    ({**ELASTIC, "cluster.training.elastic": {"min_nodes": 5}}, "cluster.training.elastic",
     INVALID, "min_nodes may not exceed max_nodes"),
    ({"pinned": "models/mine"}, "pinned", INVALID,
     "pinned must be a URL, or a path under cluster.storage.root"),
    ({"pinned": "/mnt/exsearch/a", "cluster.storage.root": "/mnt/other"}, "pinned", INVALID,
     "pinned must be a URL, or a path under cluster.storage.root"),
    ({"cluster.storage.claim": ""}, "cluster.storage.root", INVALID,
     "without a claim, root must be a URL such as s3://bucket"),
    ({"cluster.storage.size": "500 GB"}, "cluster.storage.size", INVALID, QUANTITY),
    ({"cluster.training.extra_resources": {"rdma/hca": "one"}},
     "cluster.training.extra_resources[rdma/hca]", INVALID, QUANTITY),
    ({"on_delete": "Forget"}, "on_delete", "FieldValueNotSupported", '"Retain", "Delete"'),
    ({"align.zero_stage": 1}, "align.zero_stage", "FieldValueNotSupported",
     "supported values: "),
]  # fmt: skip
"""Changes of a good spec, the field at fault, the machine's word, and what people read."""


@pytest.mark.parametrize(("changes", "field", "reason", "message"), BAD)
def test_a_bad_spec_is_refused(
    agents: Agents, changes: Object, field: str, reason: str, message: str
) -> None:
    with pytest.raises(ApiException) as refused:
        agents.create(changed(SPEC, changes))
    found = causes(refused.value)
    assert any(
        at == f"spec.{field}" and word == reason and message in text for at, word, text in found
    ), found
    status = json.loads(refused.value.body or "{}")
    assert status["message"].startswith(f'{KIND}.{GROUP} "agent" is invalid: ')
    assert f"spec.{field}: " in status["message"]


GOOD: list[Object] = [
    {"data.corpus": None, "retrieval.url": "http://retriever:8893"},
    {"data.corpus": None, "retrieval.index": "/mnt/exsearch/index"},
    {"pipeline.schedule.cron": "0  30 3 1-7 * 6"},
    {**ELASTIC, "cluster.training.elastic": {"min_nodes": 2, "max_nodes": 2}},
    {"pinned": "hf://org/model"},
    {"pinned": "/mnt/exsearch/runs/a/model"},
    {"cluster.storage": {"claim": "", "root": "s3://bucket", "scratch": "0.5Gi"}},
    {"align": {"zero_stage": 3, "lora_rank": 8}},
]


def test_what_is_right_is_taken(agents: Agents) -> None:
    for number, changes in enumerate(GOOD):
        agents.create(changed(SPEC, changes), f"agent-{number}")
    # What a run's own run.yaml has: a null is as good as nothing.
    nulls = {"canary": None, "cluster": {"training": {"elastic": None}}}
    agents.create({**SPEC, **nulls, "data": {**SPEC["data"], "train_limit": None}}, "agent-null")


@pytest.mark.parametrize("name", ["a" * 41, "1st", "dotted.name"])
def test_a_name_that_no_service_can_bear_is_refused(agents: Agents, name: str) -> None:
    with pytest.raises(ApiException) as refused:
        agents.create(SPEC, name)
    [(field, reason, message)] = causes(refused.value)
    assert (field, reason) == ("metadata.name", INVALID)
    assert "the name must have at most 40 characters: a letter, then" in message


def test_a_name_of_forty_characters_is_taken(agents: Agents) -> None:
    agents.create(SPEC, "a" * 40)


def test_what_the_operator_decides_is_no_field(
    kubectl: Kubectl, namespace: str, tmp_path: Path
) -> None:
    for own in ({"run": "runs/a"}, {"cluster": {"deploy": {"name": "x"}}},
                {"cluster": {"namespace": "x"}}):  # fmt: skip
        item = {"apiVersion": f"{GROUP}/{VERSION}", "kind": KIND,
                "metadata": {"name": "own", "namespace": namespace},
                "spec": {**SPEC, **own}}  # fmt: skip
        file = tmp_path / "own.yaml"
        file.write_text(yaml.safe_dump(item), encoding="utf-8")
        done = kubectl("create", "--validate=strict", "--filename", str(file))
        assert done.returncode != 0
        assert "unknown field" in done.stderr


FIXED: list[tuple[Object, Object, str, str]] = [
    ({}, {"cluster.storage.claim": "other"}, "cluster.storage.claim",
     "cluster.storage.claim cannot be changed (its default is exsearch)"),
    ({"cluster.storage.claim": "mine"}, {"cluster.storage": None}, "cluster.storage.claim",
     "cluster.storage.claim cannot be changed (its default is exsearch)"),
    ({"cluster.storage.root": "/mnt/exsearch/a"}, {"cluster.storage.root": "/mnt/exsearch/b"},
     "cluster.storage.root", "cluster.storage.root cannot be changed"),
    ({"pipeline.name": "a"}, {"pipeline.name": "b"}, "pipeline.name",
     "pipeline.name cannot be set, changed or removed afterwards"),
    ({"pipeline.name": "a"}, {"pipeline": None}, "pipeline.name",
     "pipeline.name cannot be set, changed or removed afterwards"),
    ({}, {"pipeline.name": "b"}, "pipeline.name",
     "pipeline.name cannot be set, changed or removed afterwards"),
]  # fmt: skip
"""Changes of a good spec, changes of that, the field at fault, and what people read."""


@pytest.mark.parametrize(("first", "then", "field", "message"), FIXED)
def test_what_is_chosen_once_stays(
    agents: Agents, first: Object, then: Object, field: str, message: str
) -> None:
    spec = agents.create(changed(SPEC, first))["spec"]
    with pytest.raises(ApiException) as refused:
        agents.replace(changed(spec, then))
    [(at, reason, text)] = causes(refused.value)
    assert (at, reason) == (f"spec.{field}", FORBIDDEN)
    assert message in text
    # Saying what was left to its default changes nothing, and other settings may change.
    storage = spec.get("cluster", {}).get("storage", {})
    said = {"cluster.storage.claim": storage.get("claim", "exsearch"),
            "cluster.storage.root": storage.get("root", "/mnt/exsearch")}  # fmt: skip
    assert agents.replace(changed(spec, {**said, "seed": 1}))["spec"]["seed"] == 1


STATUS: Object = {
    "phase": "Serving",
    "observedGeneration": 1,
    "conditions": [
        {"type": "Serving", "status": "True", "reason": "Ready", "message": "is served",
         "lastTransitionTime": "2026-01-01T03:00:00Z", "observedGeneration": 1},
    ],
    "champion": {
        "model": "/mnt/exsearch/runs/w1/model", "digest": "d1", "run": "runs/w1",
        "promoted": "2026-01-01T03:00:00.123Z", "reason": "gained", "metrics": {"em": 0.375},
    },
    "history": [],
    "lastRun": {"id": "1", "name": "w1", "state": "SUCCEEDED"},
    "recurringRun": {"id": "2", "name": "ns-agent", "digest": "s", "enabled": True},
    "url": "http://agent.ns.example",
}  # fmt: skip


def test_status_is_written_through_its_own_path_only(agents: Agents) -> None:
    made = agents.create(SPEC, status=STATUS)
    assert "status" not in made
    assert "status" not in agents.patch({"status": STATUS})
    assert agents.patch_status(STATUS)["status"] == STATUS
    found = agents.get()
    assert found["metadata"]["generation"] == 1
    assert agents.patch({"spec": {"seed": 2}})["status"] == STATUS
    # And through it nothing but the status.
    body = {**agents.get(), "spec": SPEC, "status": {**STATUS, "phase": "Suspended"}}
    agents.replace_status(body)
    found = agents.get()
    assert (found["spec"]["seed"], found["status"]["phase"]) == (2, "Suspended")


@pytest.mark.parametrize(
    "wrong",
    [
        {"phase": "Flying"},
        {"champion": {**STATUS["champion"], "promoted": 1.5}},
        {"conditions": [{"type": "Serving", "status": "Perhaps"}]},
        {"conditions": [*STATUS["conditions"], *STATUS["conditions"]]},
    ],
    ids=["phase", "time", "condition", "doubled"],
)
def test_a_status_of_another_shape_is_refused(agents: Agents, wrong: Object) -> None:
    agents.create(SPEC)
    with pytest.raises(ApiException) as refused:
        agents.patch_status({**STATUS, **wrong})
    assert refused.value.status == 422


def test_kubectl_finds_the_columns_by_every_name(
    cluster: Cluster, kubectl: Kubectl, agents: Agents, namespace: str
) -> None:
    agents.create(SPEC)
    agents.patch_status(STATUS)
    [version] = definition()["spec"]["versions"]
    columns = version["additionalPrinterColumns"]
    shown = ",".join(f"{c['name'].replace(' ', '')}:{c['jsonPath']}" for c in columns)
    for name in (PLURAL, "searchagent", "sag"):
        done = kubectl("get", "-n", namespace, name, "-o", f"custom-columns={shown}")
        assert done.returncode == 0, done.stderr
        head, row = done.stdout.splitlines()
        assert head.split()[:3] == ["Phase", "Champion", "EM"]
        assert row.split()[:4] == ["Serving", "runs/w1", "0.375", "SUCCEEDED"]
        assert row.split()[5:] == ["d1", "http://agent.ns.example"]
    # How a server prints them itself; the stand-in prints no tables.
    table = kubectl("get", "-n", namespace, "sag")
    assert "agent" in table.stdout
    if cluster.real:
        assert table.stdout.split()[:6] == ["NAME", "PHASE", "CHAMPION", "EM", "LAST", "RUN"]


def test_an_agent_whose_operator_is_gone_can_be_freed_by_hand(agents: Agents) -> None:
    agents.create(SPEC)
    agents.patch({"metadata": {"finalizers": ["exsearch.dev/searchagent"]}})
    agents.delete()
    assert agents.get()["metadata"]["deletionTimestamp"]
    agents.patch({"metadata": {"finalizers": None}})
    end = time.monotonic() + 30
    while agents.listed():
        assert time.monotonic() < end
        time.sleep(0.1)
