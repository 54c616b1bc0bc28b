"""Jobs of the cluster as objects: names, and what operators and admission make of them."""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import settings as trials
from hypothesis import strategies as st
from kube_api import job_pods, schema
from kube_api.pod_security import violations

from exsearch.config import ClusterConfig
from exsearch.errors import InputError
from exsearch.kube.names import FINGERPRINT, LONGEST, Work, job_name, label_value
from exsearch.kube.pytorchjob import pytorch_job
from exsearch.kube.trainjob import train_job

pytestmark = pytest.mark.unit

ROOT = Path(__file__).resolve().parents[2]
CRDS = Path(os.environ.get("EXSEARCH_CRDS") or ROOT.parent / "shared" / "crds")
WORK = Work("/mnt/exsearch/runs/mine", "iter-01-train", "/mnt/exsearch/job.json", "f00d")
Build = Callable[[Work, ClusterConfig], dict[str, Any]]

GPUS: dict[str, Any] = {
    "queue": "research",
    "gpu_selector": {"nvidia.com/gpu.product": "H100"},
    "node_selector": {"pool": "train"},
    "tolerations": [{"key": "nvidia.com/gpu", "effect": "NoSchedule"}],
    "labels": {"team": "search", "app.kubernetes.io/name": "not-ours"},
    "images": {"pull_secrets": ["registry"]},
    "storage": {"secret": "bucket"},
    "training": {
        "nodes": 4,
        "resources": {"cpu": "32", "memory": "512Gi", "gpus": 8},
        "extra_resources": {"rdma/hca": "1"},
        "environment": {"NCCL_SOCKET_IFNAME": "eth0", "NCCL_DEBUG": "INFO"},
    },
}
ELASTIC: dict[str, Any] = {"training": {"nodes": 2, "elastic": {"min_nodes": 2, "max_nodes": 4}}}
SETTINGS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "no volume": {"storage": {"claim": ""}},
    "two nodes": {"training": {"nodes": 2}},
    "gpus": GPUS,
}
ELASTIC_OR_RANKED = {"elastic": ELASTIC, "priority": {"priority_class": "high"}}


def cluster(settings: dict[str, Any]) -> ClusterConfig:
    return ClusterConfig.model_validate(settings)


@cache
def schema_of(crd: str, version: str) -> schema.Node:
    file = CRDS / f"{crd}.yaml"
    if not file.exists():
        pytest.skip(f"no {file}: set EXSEARCH_CRDS to a folder of CustomResourceDefinitions")
    spec = yaml.load(file.read_text(), getattr(yaml, "CSafeLoader", yaml.SafeLoader))["spec"]
    [found] = [v for v in spec["versions"] if v["name"] == version]
    return schema.Node(found["schema"]["openAPIV3Schema"])


def problems(item: dict[str, Any]) -> list[str]:
    """Unknown fields, wrong types and wrong values, by the CRD of the object's kind."""
    crd, version = {
        "PyTorchJob": ("kubeflow.org_pytorchjobs", "v1"),
        "TrainJob": ("trainer.kubeflow.org_trainjobs", "v1alpha1"),
    }[item["kind"]]
    node = schema_of(crd, version)
    found: list[str] = []
    schema.pruned({k: v for k, v in item.items() if k != "metadata"}, node, "", found)
    found += [
        f"{path}: not {kind}: {value}" for path, kind, value in schema.wrong_types(item, node)
    ]
    return found + [str(cause) for cause in schema.wrong_values(item, node)]


def pods_of(job: dict[str, Any]) -> list[dict[str, Any]]:
    """The pods that training-operator 1.9 makes of a PyTorchJob."""
    owned = {**job, "metadata": {**job["metadata"], "uid": "0"}}
    full = job_pods.with_defaults(owned)
    return [
        job_pods.pod(full, role, index)
        for role, replica in full["spec"]["pytorchReplicaSpecs"].items()
        for index in range(replica["replicas"])
    ]


def environment(pod: dict[str, Any]) -> dict[str, Any]:
    """As a process sees it: of two variables with one name, the later counts."""
    listed = pod["spec"]["containers"][0]["env"]
    return {e["name"]: e.get("value", e.get("valueFrom")) for e in listed}


@trials(deadline=None)
@given(run=st.text(), step=st.text())
def test_a_name_is_a_dns_label_with_room_for_suffixes(run: str, step: str) -> None:
    name = job_name(run, step)
    assert re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", name)
    assert len(name) <= LONGEST
    assert len(f"{name}-worker-999") <= 63
    assert name == job_name(run, step)


@trials(deadline=None)
@given(st.lists(st.tuples(st.text(), st.text()), min_size=2, unique=True, max_size=6))
def test_other_steps_have_other_names(steps: list[tuple[str, str]]) -> None:
    assert len({job_name(*step) for step in steps}) == len(steps)


def test_a_name_can_be_read() -> None:
    assert job_name("/mnt/exsearch/runs/Mine_2/", "iter-01-train").startswith(
        "mine-2-iter-01-train-"
    )


@trials(deadline=None)
@given(st.text())
def test_every_text_makes_a_label(text: str) -> None:
    value = label_value(text)
    assert value == "" or re.fullmatch(r"[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?", value)
    assert len(value) <= 63


@pytest.mark.parametrize("settings", {**SETTINGS, **ELASTIC_OR_RANKED}.values(), ids=str)
def test_a_pytorch_job_is_one(settings: dict[str, Any]) -> None:
    job = pytorch_job(WORK, cluster(settings))
    assert problems(job) == []
    for pod in pods_of(job):
        assert violations(pod["spec"]) == []
        assert pod["spec"]["automountServiceAccountToken"] is False


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=str)
def test_a_train_job_is_one(settings: dict[str, Any]) -> None:
    job = train_job(WORK, cluster(settings))
    assert problems(job) == []
    [patch] = job["spec"]["runtimePatches"]
    [node] = patch["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]
    assert violations(node["template"]["spec"]["template"]["spec"]) == []


@pytest.mark.parametrize("settings", ELASTIC_OR_RANKED.values(), ids=str)
def test_what_a_train_job_cannot_say_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="launcher=pytorchjob"):
        train_job(WORK, cluster(settings))


def test_an_elastic_range_holds_the_number_to_start_with() -> None:
    with pytest.raises(InputError, match=r"5, outside of elastic's 2\.\.4"):
        pytorch_job(WORK, cluster({"training": {**ELASTIC["training"], "nodes": 5}}))


@pytest.mark.parametrize("build", [pytorch_job, train_job])
def test_nothing_a_pod_needs_to_write_is_read_only(build: Build) -> None:
    text = str(build(WORK, cluster({})))
    assert "'readOnlyRootFilesystem': True" in text
    for path in ("/mnt/exsearch", "/dev/shm", "/tmp"):
        assert f"'mountPath': '{path}'" in text


def test_a_pod_gets_what_was_asked_for() -> None:
    job = pytorch_job(WORK, cluster(GPUS))
    assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "research"
    assert job["spec"]["runPolicy"]["suspend"] is True
    assert job["metadata"]["labels"]["app.kubernetes.io/name"] == "exsearch"
    pods = pods_of(job)
    assert [p["metadata"]["name"] for p in pods] == [
        f"{WORK.name}-worker-{index}" for index in range(4)
    ]
    spec = pods[0]["spec"]
    assert spec["nodeSelector"] == {"pool": "train", "nvidia.com/gpu.product": "H100"}
    assert spec["tolerations"] == [
        {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}
    ]
    assert spec["imagePullSecrets"] == [{"name": "registry"}]
    assert spec["containers"][0]["resources"]["limits"] == {
        "memory": "512Gi", "nvidia.com/gpu": "8", "rdma/hca": "1",
    }  # fmt: skip
    said = environment(pods[0])
    assert said["NCCL_DEBUG"] == "INFO"
    assert said["AWS_ACCESS_KEY_ID"]["secretKeyRef"]["optional"] is True
    assert pods[0]["metadata"]["annotations"]["sidecar.istio.io/inject"] == "false"


def test_without_gpus_a_pod_is_not_bound_to_their_nodes() -> None:
    settings = {"gpu_selector": {"nvidia.com/gpu.product": "H100"}}
    spec = pods_of(pytorch_job(WORK, cluster(settings)))[0]["spec"]
    assert "nodeSelector" not in spec
    assert list(spec["containers"][0]["resources"]["limits"]) == ["memory"]


@pytest.mark.parametrize(
    ("settings", "nodes", "processes", "meets"),
    [
        ({}, "1", "1", False),
        ({"training": {"nodes": 3}}, "3", "1", True),
        (GPUS, "4", "8", True),
        (ELASTIC, "2:4", "1", True),
    ],
    ids=["one", "three", "gpus", "elastic"],
)
def test_torchrun_finds_all_it_needs_in_the_environment(
    settings: dict[str, Any], nodes: str, processes: str, meets: bool
) -> None:
    job = pytorch_job(WORK, cluster(settings))
    for pod in pods_of(job):
        said = environment(pod)
        assert {name for name in said if name.startswith("PET_")} <= torchrun_variables()
        assert (said["PET_NNODES"], said["PET_NPROC_PER_NODE"]) == (nodes, processes)
        command = ["torchrun", "-m", "exsearch.training.main", WORK.job_file]
        assert pod["spec"]["containers"][0]["command"] == command
        assert meets == ("PET_RDZV_BACKEND" in said)
        if meets:
            assert said["PET_RDZV_BACKEND"] == "c10d"
            assert said["PET_RDZV_ENDPOINT"] == f"{pods_of(job)[0]['metadata']['name']}:23456"
            assert said["PET_RDZV_ID"] == WORK.name
            assert int(said["PET_MAX_RESTARTS"]) > 0


def torchrun_variables() -> set[str]:
    """PET_ and the longest name of every option of torchrun, read from its source, not run."""
    spec = find_spec("torch")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("torch is not installed")
    source = Path(spec.submodule_search_locations[0], "distributed/run.py").read_text()
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "add_argument":
            names = [a.value for a in node.args if isinstance(a, ast.Constant)]
            longest = max((str(n).lstrip("-") for n in names), key=len)
            found.add("PET_" + longest.replace("-", "_").upper())
    return found


@pytest.mark.parametrize("build", [pytorch_job, train_job])
def test_whatever_changes_the_job_changes_its_fingerprint(build: Build) -> None:
    def print_of(work: Work, settings: dict[str, Any]) -> str:
        return build(work, cluster(settings))["metadata"]["annotations"][FINGERPRINT]

    same = print_of(WORK, {})
    assert print_of(WORK, {}) == same
    more = {"training": {"resources": {"memory": "128Gi"}}}
    assert print_of(WORK, more) != same
    assert print_of(Work(WORK.run, WORK.step, WORK.job_file, "beef"), {}) != same
