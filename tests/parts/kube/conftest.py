"""One cluster for all tests that talk to Kubernetes, and a namespace for each."""

from __future__ import annotations

import re
import secrets
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from kube_api.cluster import Cluster, OnlyStandIn, crd_folder, open_cluster
from kubernetes import client


@pytest.fixture(scope="session")
def cluster(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Cluster]:
    """An API server that holds every CRD; see `kube_api.cluster`."""
    crds = crd_folder()
    if crds is None:
        pytest.skip("no CRDs: set EXSEARCH_CRDS to a folder of CustomResourceDefinitions in YAML")
    cache = Path(tempfile.gettempdir()) / f"exsearch-crds-{Path.home().name}"
    opened = open_cluster(tmp_path_factory.mktemp("cluster"), crds, cache)
    yield opened
    opened.close()


@pytest.fixture
def namespace(cluster: Cluster, request: pytest.FixtureRequest) -> Iterator[str]:
    """A fresh namespace, with its default service account, deleted after the test."""
    word = re.sub(r"[^a-z0-9]+", "-", request.node.name.lower()).strip("-")[:40].strip("-")
    name = f"{word}-{secrets.token_hex(3)}"
    cluster.core.create_namespace({"metadata": {"name": name}})
    _account(cluster, name)
    yield name
    cluster.start()
    # No kubelet is left to say that bound pods have stopped.
    cluster.core.delete_collection_namespaced_pod(name, grace_period_seconds=0)
    cluster.core.delete_namespace(name)


def _account(cluster: Cluster, namespace: str) -> None:
    """Wait for the default account; make it where no controller manager does."""
    for _ in range(50):
        try:
            cluster.core.read_namespaced_service_account("default", namespace)
            return
        except client.ApiException as error:
            if error.status != 404:
                raise
        time.sleep(0.1)
    cluster.core.create_namespaced_service_account(namespace, {"metadata": {"name": "default"}})


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """What only the stand-in can do is skipped on a real server."""
    try:
        return (yield)
    except OnlyStandIn as reason:
        pytest.skip(str(reason))
