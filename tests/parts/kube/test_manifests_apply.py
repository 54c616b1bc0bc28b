"""Every overlay on an API server: applied strictly, its pods admitted, its accounts confined."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from kube_api.cluster import Cluster
from kubernetes import client
from manifest_checks import OVERLAYS, Object, build, named, tool

from exsearch.config import load
from exsearch.em.champion import Promotion
from exsearch.kube.deploy import restore, serve
from exsearch.kube.serving import find_service

pytestmark = pytest.mark.kube

Apply = Callable[..., subprocess.CompletedProcess[str]]


def moved(objects: list[Object], namespace: str) -> list[Object]:
    """The objects in another namespace: tests share a cluster, and a claim cannot be changed."""
    found = json.loads(json.dumps(objects))
    for item in found:
        if item["kind"] == "Namespace":
            item["metadata"]["name"] = namespace
        else:
            item["metadata"]["namespace"] = namespace
        for subject in item.get("subjects", []):
            subject["namespace"] = namespace
    return found


@pytest.fixture
def apply(cluster: Cluster, tmp_path: Path) -> Apply:
    """Apply objects server-side, with every unknown field an error."""

    def applied(objects: list[Object], *more: str) -> subprocess.CompletedProcess[str]:
        file = tmp_path / "objects.yaml"
        file.write_text(yaml.safe_dump_all(objects), encoding="utf-8")
        return subprocess.run(
            [tool("kubectl"), "apply", "--server-side", "--validate=strict",
             "--filename", str(file), *more],
            capture_output=True, text=True, check=False, timeout=300,
            env={**os.environ, "KUBECONFIG": str(cluster.kubeconfig()), "HOME": str(tmp_path)},
        )  # fmt: skip

    return applied


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_overlay_applies_without_a_warning_and_again(
    apply: Apply, namespace: str, overlay: str
) -> None:
    objects = moved(build(overlay), namespace)
    for _ in range(2):
        done = apply(objects)
        assert done.returncode == 0, done.stderr
        assert not done.stderr
        assert done.stdout.count("serverside-applied") == len(objects)


def test_an_unknown_field_is_refused(apply: Apply, namespace: str) -> None:
    objects = moved(build("gpu"), namespace)
    named(objects, "ServiceMonitor", "exsearch-retriever")["spec"]["endpoint"] = []
    done = apply(objects)
    assert done.returncode != 0
    assert "endpoint" in done.stderr


def test_applying_again_takes_no_champion_out_of_service(
    cluster: Cluster, apply: Apply, installed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # With the rights that the deploy step has, and no more.
    account = f"{installed}/exsearch-deployer"
    monkeypatch.setenv("KUBECONFIG", str(cluster.kubeconfig(account)))
    promoted = Promotion(
        model=f"{tmp_path}/runs/a", digest="d", run="a", promoted=1.0, reason="", metrics={}
    )
    storage = f"cluster.storage.mount={tmp_path}"
    settings = load(None, [f"cluster.namespace={installed}", storage]).cluster
    serve(promoted, settings, print)
    restore(promoted, settings, print)
    done = apply(moved(build("gpu"), installed))
    assert done.returncode != 0
    assert "storageUri" in done.stderr
    found = find_service(settings)
    assert found is not None
    assert (found.model, found.digest) == ("pvc://exsearch/runs/a", "d")


@pytest.fixture
def installed(apply: Apply, namespace: str) -> str:
    """A namespace with the `gpu` overlay in it."""
    done = apply(moved(build("gpu"), namespace))
    assert done.returncode == 0, done.stderr
    return namespace


def test_its_pods_are_admitted_and_careless_ones_are_not(cluster: Cluster, installed: str) -> None:
    template = named(build("gpu"), "Deployment", "exsearch-retriever")["spec"]["template"]
    pod: dict[str, Any] = {
        "metadata": {"name": "retriever", **template["metadata"]},
        "spec": json.loads(json.dumps(template["spec"])),
    }
    made: Any = cluster.core.create_namespaced_pod(installed, pod)
    assert made.metadata.name == "retriever"
    pod["metadata"]["name"] = "careless"
    pod["spec"]["containers"][0]["securityContext"] = {}
    with pytest.raises(client.ApiException) as refused:
        cluster.core.create_namespaced_pod(installed, pod)
    assert refused.value.status == 403
    assert "restricted" in str(refused.value.body)


JOBS, SERVICES = "pytorchjobs.kubeflow.org", "inferenceservices.serving.kserve.io"
RIGHTS = [
    ("exsearch-launcher", "create", JOBS, True),
    ("exsearch-launcher", "delete", JOBS, True),
    ("exsearch-launcher", "watch", "trainjobs.trainer.kubeflow.org", True),
    ("exsearch-launcher", "watch", "pods", True),
    ("exsearch-launcher", "get", "pods/log", True),
    ("exsearch-launcher", "list", "events", True),
    ("exsearch-launcher", "patch", JOBS, False),
    ("exsearch-launcher", "create", "pods", False),
    ("exsearch-launcher", "create", "pods/exec", False),
    ("exsearch-launcher", "patch", SERVICES, False),
    ("exsearch-deployer", "get", f"{SERVICES} exsearch", True),
    ("exsearch-deployer", "patch", f"{SERVICES} exsearch", True),
    ("exsearch-deployer", "list", SERVICES, False),
    ("exsearch-deployer", "patch", f"{SERVICES} another", False),
    ("exsearch-deployer", "create", SERVICES, False),
    ("exsearch-deployer", "create", JOBS, False),
    ("exsearch-pipeline", "create", JOBS, True),
    ("exsearch-pipeline", "patch", f"{SERVICES} exsearch", True),
    ("exsearch-pipeline", "create", "workflowtaskresults.argoproj.io", True),
    ("exsearch-pipeline", "get", "configmaps kfp-launcher", True),
    ("exsearch-pipeline", "get", "configmaps another", False),
    ("exsearch-pipeline", "get", "persistentvolumeclaims exsearch", True),
    ("exsearch-pipeline", "create", "pods", False),
    ("exsearch-retriever", "get", "pods", False),
    ("exsearch-agent", "get", f"{SERVICES} exsearch", False),
    ("default", "get", "pods", False),
]
"""Account, verb, resource with subresource, group and name, and whether it may."""
NOBODYS = [("get", "secrets"), ("list", "secrets"), ("list", "nodes")]
"""What no account may."""


def may(cluster: Cluster, account: str, verb: str, resource: str, namespace: str | None) -> bool:
    """Ask the API server itself, as the account, about its own rights."""
    kind, _, name = resource.partition(" ")
    kind, _, subresource = kind.partition("/")
    plural, _, group = kind.partition(".")
    asked = {"verb": verb, "group": group, "resource": plural, "namespace": namespace}
    asked |= {"subresource": subresource, "name": name}
    body = {"spec": {"resourceAttributes": {key: value for key, value in asked.items() if value}}}
    api = client.AuthorizationV1Api(cluster.client(account))
    answer: Any = api.create_self_subject_access_review(body)
    return bool(answer.status.allowed)


def test_accounts_may_what_they_use_and_no_more(cluster: Cluster, installed: str) -> None:
    for name, verb, resource, allowed in RIGHTS:
        found = may(cluster, f"{installed}/{name}", verb, resource, installed)
        assert found is allowed, (name, verb, resource)
    for name in {right[0] for right in RIGHTS}:
        account = f"{installed}/{name}"
        for verb, resource in NOBODYS:
            space = None if resource == "nodes" else installed
            assert not may(cluster, account, verb, resource, space), (name, verb, resource)
        assert not may(cluster, account, "list", JOBS, "default"), f"{name} in another namespace"
