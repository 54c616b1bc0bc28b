"""What a pipeline run needs of the cluster, looked at in seconds, all problems at once.

Only what the pipeline's account may see is looked at: the API's own list of kinds, and
objects of the run's namespace. Nodes and secrets are neither read nor needed; whether a
node has the GPU that is asked for can therefore not be told here: a job that finds none is
ended by `cluster.training.queue_deadline`, with the scheduler's own words.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from exsearch.config import ClusterConfig, RunConfig
from exsearch.em.prerequisites import problems as run_problems
from exsearch.errors import InputError
from exsearch.kube.answers import Kind
from exsearch.kube.client import Api

PYTORCHJOB = ("kubeflow.org/v1", "PyTorchJob", "the Kubeflow training operator")
TRAINJOB = ("trainer.kubeflow.org/v1alpha1", "TrainJob", "Kubeflow Trainer v2")
QUEUE = ("kueue.x-k8s.io/v1beta2", "LocalQueue", "Kueue")
OLDER = {QUEUE[0]: "kueue.x-k8s.io/v1beta1"}
"""An older version that will do where the one by which a kind is known is not served."""
CLAIMS = Kind("", "v1", "persistentvolumeclaims")
PATIENCE = 20.0
"""Seconds the API may take to answer: prerequisites fail fast."""
SERVICE = ("serving.kserve.io/v1beta1", "InferenceService", "KServe")


def check(config: RunConfig) -> None:
    """Look at everything a run needs.

    Raises:
        InputError: something is missing; the message lists all of it.
    """
    found = [*run_problems(config), *cluster_problems(config.cluster)]
    if found:
        raise InputError(
            f"{len(found)} thing(s) stand in the way of this run:"
            + "".join(f"\n  - {problem}" for problem in found)
        )


def cluster_problems(cluster: ClusterConfig) -> list[str]:
    """What the cluster lacks; nothing is asked where the run stays in its own pods."""
    needed = list(_kinds(cluster))
    return asyncio.run(_problems(cluster, needed)) if needed else []


async def _problems(cluster: ClusterConfig, needed: list[tuple[str, str, str]]) -> list[str]:
    async with Api.open(patience=PATIENCE) as api:
        served: dict[str, str] = {}
        for version, kind, _ in needed:
            found = await _served(api, version, kind)
            if found:
                served[kind] = found
        missing = [
            f"the cluster has no {kind} ({group}): install {owner}, or change "
            "cluster.training.launcher"
            for group, kind, owner in needed
            if kind not in served
        ]
        if "LocalQueue" in served:
            version = served["LocalQueue"].rpartition("/")[2]
            missing += await _queue_problems(api, version, cluster.namespace, cluster.queue)
        return [*missing, *await _claim_problems(api, cluster)]


async def _served(api: Api, version: str, kind: str) -> str:
    """The version, `GROUP/VERSION`, by which the cluster serves a kind; empty: by none of ours."""
    for each in filter(None, (version, OLDER.get(version))):
        if kind in await api.kinds(each):
            return each
    return ""


def _kinds(cluster: ClusterConfig) -> Iterator[tuple[str, str, str]]:
    training = cluster.training.launcher
    if training == "pytorchjob":
        yield PYTORCHJOB
    if training == "trainjob":
        yield TRAINJOB
    if training != "local" and cluster.queue:
        yield QUEUE
    if cluster.deploy.name:
        yield SERVICE


async def _claim_problems(api: Api, cluster: ClusterConfig) -> list[str]:
    space, storage = cluster.namespace, cluster.storage
    if not storage.claim:
        return []
    claim = await api.get(CLAIMS, space, storage.claim)
    if claim is None:
        return [
            f"namespace {space} has no PersistentVolumeClaim {storage.claim}: apply the "
            "manifests, or set cluster.storage.claim"
        ]
    found: list[str] = []
    if claim.get("status", {}).get("phase") == "Lost":
        found.append(f"PersistentVolumeClaim {storage.claim} has lost its volume")
    given = claim["spec"].get("storageClassName", "")
    if storage.storage_class not in ("", given):
        found.append(
            f"PersistentVolumeClaim {storage.claim} has storage class {given!r}, not "
            f"{storage.storage_class!r} (cluster.storage.storage_class)"
        )
    return found


async def _queue_problems(api: Api, version: str, space: str, name: str) -> list[str]:
    queues = Kind("kueue.x-k8s.io", version, "localqueues", "Kueue")
    queue = await api.get(queues, space, name)
    if queue is None:
        return [f"namespace {space} has no LocalQueue {name}: make it, or set cluster.queue"]
    for condition in queue.get("status", {}).get("conditions", []):
        if condition["type"] == "Active" and condition["status"] == "False":
            return [f"LocalQueue {name} is not active: {condition.get('message', '')}"]
    return []
