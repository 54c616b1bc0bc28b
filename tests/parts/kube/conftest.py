"""One cluster for all tests that talk to Kubernetes, and a namespace for each."""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import AsyncIterator, Iterator

import httpx
import pytest
import pytest_asyncio
from kube_api.cluster import Cluster, OnlyStandIn, crd_folder, open_cluster
from kubernetes import client
from operator_hand import Hand
from operator_scene import (
    Agents,
    KubeflowWithRuns,
    Prometheus,
    install,
    kubeflow_with_runs,
    prometheus,
)

from exsearch.operator.api import OperatorApi, configuration_of
from exsearch.operator.kfp import Pipelines
from exsearch.operator.look import Means, Pace
from exsearch.operator.metrics import Metrics
from exsearch.operator.reconcile import Reconciler


@pytest.fixture(scope="session")
def cluster(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Cluster]:
    """An API server that holds every CRD; see `kube_api.cluster`."""
    crds = crd_folder()
    if crds is None:
        pytest.skip("no CRDs: set EXSEARCH_CRDS to a folder of CustomResourceDefinitions in YAML")
    opened = open_cluster(tmp_path_factory.mktemp("cluster"), crds)
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


@pytest.fixture(scope="module")
def searchagents(cluster: Cluster) -> None:
    """The cluster serves SearchAgents."""
    install(cluster)


@pytest.fixture
def kubeflow() -> Iterator[KubeflowWithRuns]:
    with kubeflow_with_runs() as state:
        yield state


@pytest.fixture
def figures() -> Iterator[Prometheus]:
    with prometheus() as state:
        yield state


@pytest.fixture
def agents(cluster: Cluster, namespace: str) -> Iterator[Agents]:
    found = Agents(cluster, namespace)
    yield found
    cluster.start()
    found.release()


@pytest_asyncio.fixture
async def hand(cluster: Cluster, namespace: str) -> AsyncIterator[Hand]:
    pace = Pace(kubeflow=0.0)
    configuration = configuration_of(str(cluster.kubeconfig()))
    async with (
        OperatorApi(configuration, patience=1.0) as api,
        httpx.AsyncClient() as http,
        Pipelines() as pipelines,
    ):
        yield Hand(Reconciler(Means(api, pipelines, http, Metrics(), pace)), namespace)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """What only the stand-in can do is skipped on a real server."""
    try:
        return (yield)
    except OnlyStandIn as reason:
        pytest.skip(str(reason))
