"""What the pipeline's steps ask of the cluster beside training jobs: its kinds, its volume,
its queue, and one patch of the InferenceService."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from kube_api.cluster import Cluster

from exsearch.config import ClusterConfig, load
from exsearch.em.champion import Promotion
from exsearch.errors import InputError
from exsearch.kube.answers import Kind
from exsearch.kube.client import Api
from exsearch.kube.deploy import serve, storage_uri
from exsearch.kube.prerequisites import check, cluster_problems

pytestmark = pytest.mark.kube

CLAIM = {
    "metadata": {"name": "exsearch"},
    "spec": {
        "accessModes": ["ReadWriteMany"],
        "storageClassName": "slow",
        "resources": {"requests": {"storage": "1Gi"}},
    },
}
QUEUE = {
    "apiVersion": "kueue.x-k8s.io/v1beta1",
    "kind": "LocalQueue",
    "metadata": {"name": "exsearch"},
    "spec": {"clusterQueue": "all"},
}
SERVICE = {
    "apiVersion": "serving.kserve.io/v1beta1",
    "kind": "InferenceService",
    "metadata": {
        "name": "exsearch",
        "annotations": {"serving.kserve.io/deploymentMode": "Knative"},
    },
    "spec": {
        "predictor": {
            "model": {"modelFormat": {"name": "exsearch"}, "storageUri": "pvc://exsearch/old"},
        }
    },
}
PROMOTED = Promotion(
    model="/mnt/exsearch/runs/a/iter-02/train/checkpoint",
    digest="d1",
    run="/mnt/exsearch/runs/a",
    promoted=1.0,
    reason="better",
    metrics={"em": 0.5},
)


@pytest.fixture
def admin(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    monkeypatch.setenv("KUBECONFIG", str(cluster.kubeconfig()))
    return cluster


def settings(namespace: str, *more: str) -> ClusterConfig:
    launcher = "cluster.training.launcher=pytorchjob"
    return load(None, [f"cluster.namespace={namespace}", launcher, *more]).cluster


def make(cluster: Cluster, namespace: str, item: dict[str, Any]) -> None:
    group, version = item["apiVersion"].split("/")
    plural = {"LocalQueue": "localqueues", "InferenceService": "inferenceservices"}[item["kind"]]
    cluster.custom.create_namespaced_custom_object(group, version, namespace, plural, item)


def test_nothing_is_asked_where_nothing_is_needed() -> None:
    assert cluster_problems(load(None, ["cluster.deploy.name="]).cluster) == []


def test_all_that_is_missing_is_told_at_once(admin: Cluster, namespace: str) -> None:
    found = cluster_problems(settings(namespace, "cluster.queue=exsearch"))
    assert len(found) == 2
    assert f"namespace {namespace} has no LocalQueue exsearch" in found[0]
    assert f"namespace {namespace} has no PersistentVolumeClaim exsearch" in found[1]


def test_nothing_is_told_where_all_is_there(admin: Cluster, namespace: str) -> None:
    admin.core.create_namespaced_persistent_volume_claim(namespace, CLAIM)
    make(admin, namespace, QUEUE)
    assert cluster_problems(settings(namespace, "cluster.queue=exsearch")) == []
    (problem,) = cluster_problems(settings(namespace, "cluster.storage.storage_class=fast"))
    assert "storage class 'slow', not 'fast'" in problem


@pytest.mark.parametrize(
    ("versions", "says"),
    [
        (("v1beta1", "v1beta2"), ""),
        (("v1beta2",), ""),
        (("v1beta1",), ""),
        (("v1alpha1",), "no LocalQueue (kueue.x-k8s.io/v1beta2): install Kueue"),
        ((), "no LocalQueue (kueue.x-k8s.io/v1beta2): install Kueue"),
    ],
)
def test_a_queue_of_any_served_version_will_do(versions: tuple[str, ...], says: str) -> None:
    """Kueue's releases serve one of two versions, or both."""
    asked: list[str] = []

    class OneQueue:
        async def kinds(self, group: str) -> set[str]:
            name, _, version = group.partition("/")
            if name != "kueue.x-k8s.io":
                return {"PyTorchJob", "InferenceService"}
            return {"LocalQueue"} if version in versions else set()

        async def get(self, kind: Kind, namespace: str, name: str) -> dict[str, Any]:
            if kind.plural == "localqueues":
                asked.append(kind.version)
            return {"spec": {}}

        async def __aenter__(self) -> OneQueue:
            return self

        async def __aexit__(self, *_: object) -> None:
            pass

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Api, "open", lambda patience: OneQueue())
        found = cluster_problems(settings("space", "cluster.queue=exsearch"))
    assert [says in problem for problem in found] == ([True] if says else [])
    newest = [version for version in ("v1beta2", "v1beta1") if version in versions]
    assert asked == newest[:1]


def test_a_run_hears_of_the_cluster_and_of_its_own_files_together(
    admin: Cluster, namespace: str, tmp_path: Path
) -> None:
    config = load(
        None,
        [
            f"run={tmp_path}/run",
            f"cluster.namespace={namespace}",
            "cluster.training.launcher=pytorchjob",
            "model.path=/nowhere",
            "data.corpus=/no/corpus.tsv",
        ],
    )
    with pytest.raises(InputError) as told:
        check(config)
    message = str(told.value)
    for words in ("/nowhere", "/no/corpus.tsv", "PersistentVolumeClaim", "data.train", "data.test"):
        assert words in message, words


def test_a_promoted_model_is_served(admin: Cluster, namespace: str) -> None:
    make(admin, namespace, SERVICE)
    told: list[str] = []
    serve(PROMOTED, settings(namespace, "cluster.deploy.canary_percent=10"), told.append)
    served: Any = admin.custom.get_namespaced_custom_object(
        "serving.kserve.io", "v1beta1", namespace, "inferenceservices", "exsearch"
    )
    predictor = served["spec"]["predictor"]
    where = "pvc://exsearch/runs/a/iter-02/train/checkpoint"
    assert predictor["model"] == {"modelFormat": {"name": "exsearch"}, "storageUri": where}
    assert predictor["canaryTrafficPercent"] == 10
    assert served["metadata"]["annotations"]["exsearch.dev/model-digest"] == "d1"
    assert "serves /mnt/exsearch" in told[0]
    serve(PROMOTED, settings(namespace), told.append)
    served = admin.custom.get_namespaced_custom_object(
        "serving.kserve.io", "v1beta1", namespace, "inferenceservices", "exsearch"
    )
    assert "canaryTrafficPercent" not in served["spec"]["predictor"], "the canary is over"


def test_a_canary_that_the_service_cannot_have_is_told(admin: Cluster, namespace: str) -> None:
    plain = json.loads(json.dumps(SERVICE))
    plain["metadata"]["annotations"]["serving.kserve.io/deploymentMode"] = "Standard"
    make(admin, namespace, plain)
    told: list[str] = []
    serve(PROMOTED, settings(namespace, "cluster.deploy.canary_percent=10"), told.append)
    assert "mode Standard, which does not split traffic" in told[0]


def test_a_promotion_before_anything_serves_says_so(admin: Cluster, namespace: str) -> None:
    told: list[str] = []
    serve(PROMOTED, settings(namespace), told.append)
    assert "there is no InferenceService exsearch" in told[0]


def test_a_model_that_no_pod_can_mount_is_refused() -> None:
    storage = ClusterConfig().storage
    assert storage_uri("s3://bucket/model", storage) == "s3://bucket/model"
    with pytest.raises(InputError, match="on no volume that a serving pod can mount"):
        storage_uri("/tmp/model", storage)
