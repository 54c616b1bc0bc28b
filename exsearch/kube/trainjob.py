"""A TrainJob (trainer.kubeflow.org/v1alpha1, Kubeflow Trainer 2) for a training job. Pure.

A TrainJob refers to a runtime that the platform's team keeps, and patches what it may of
it: it has no field for a pull policy, a priority class or a token that is not mounted. The
runtime decides those; the pods' account is the namespace's default, which the manifests
leave without a token.
"""

from __future__ import annotations

from exsearch.config import ClusterConfig
from exsearch.errors import InputError
from exsearch.kube import names, pod
from exsearch.kube.names import Work
from exsearch.kube.pod import Fields

CONTAINER = "node"
"""Name of the trainer's replicated job in a runtime, and of the container in it."""
PORT = 29500
MANAGER = "exsearch.dev/launcher"
"""Key of our entry among the patches of a runtime."""


def train_job(work: Work, cluster: ClusterConfig) -> Fields:
    """The object to create.

    Raises:
        InputError: settings that a TrainJob cannot express.
    """
    _refuse(cluster)
    asked = cluster.training
    spec: Fields = {
        "runtimeRef": {
            "apiGroup": "trainer.kubeflow.org",
            "kind": "ClusterTrainingRuntime",
            "name": asked.runtime,
        },
        "trainer": {
            "image": cluster.images.trainer,
            "command": pod.command(work),
            "env": pod.environment(cluster, _meeting(work, cluster)),
            "numNodes": asked.nodes,
            "numProcPerNode": pod.processes(cluster),
            "resourcesPerNode": pod.resources(cluster, asked.resources, asked.extra_resources),
        },
        "runtimePatches": [_patch(work, cluster)],
        "activeDeadlineSeconds": asked.deadline,
        "suspend": bool(cluster.queue),  # until Kueue admits it
    }
    manifest = {
        "apiVersion": "trainer.kubeflow.org/v1alpha1",
        "kind": "TrainJob",
        "metadata": names.metadata(work, cluster),
        "spec": spec,
    }
    return names.sealed(manifest, work)


def _refuse(cluster: ClusterConfig) -> None:
    asked = {
        "cluster.training.elastic": cluster.training.elastic is not None,
        "cluster.priority_class": bool(cluster.priority_class),
    }
    found = [name for name, there in asked.items() if there]
    if found:
        raise InputError(
            f"a TrainJob has no field for {' and '.join(found)}: set it in the runtime "
            f"{cluster.training.runtime}, or use cluster.training.launcher=pytorchjob"
        )


def _meeting(work: Work, cluster: ClusterConfig) -> dict[str, str]:
    asked = cluster.training
    if asked.nodes == 1:
        return {}
    host = f"{work.name}-{CONTAINER}-0-0.{work.name}"
    return pod.rendezvous(work.name, f"{host}:{PORT}", asked.backoff_limit)


def _patch(work: Work, cluster: ClusterConfig) -> Fields:
    """Our part of the pods: labels, volumes, security, placement."""
    container = {
        "name": CONTAINER,
        "volumeMounts": pod.mounts(cluster),
        "securityContext": pod.container_security(),
    }
    template: Fields = {
        "metadata": {"labels": names.labels(work, cluster), "annotations": pod.OFF_THE_MESH},
        "spec": {
            "containers": [container],
            "volumes": pod.volumes(cluster),
            "securityContext": pod.pod_security(),
            **pod.placement(cluster, work),
            **pod.pull_secrets(cluster),
        },
    }
    job = {"name": CONTAINER, "template": {"spec": {"template": template}}}
    spec = {"template": {"spec": {"replicatedJobs": [job]}}}
    return {"manager": MANAGER, "trainingRuntimeSpec": spec}
