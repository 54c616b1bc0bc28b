"""A PyTorchJob (kubeflow.org/v1, training-operator 1.9) for a training job. Pure.

What the operator makes of it, and why it looks as it does:

* Workers only, no Master. To the workers of a job with a Master the operator adds an init
  container without a security context of its own, and a namespace under the *restricted*
  level refuses those pods. Without a Master it sets PET_NNODES and PET_NPROC_PER_NODE, and
  the variables of the rendezvous at the first worker are ours (or, for an elastic job, the
  operator's, from `elasticPolicy`).
* `restartPolicy: ExitCode`. A pod that was killed (evicted, preempted, its node lost) ends
  with 128 or more, mostly 137 or 143, and is replaced; one that failed by itself ends with
  torchrun's 1 and fails the job. OnFailure would repeat every Python error, too.
* Under ExitCode the operator counts no replacements; `backoff_limit` is kept by the launcher.
"""

from __future__ import annotations

from exsearch.config import ClusterConfig
from exsearch.errors import InputError
from exsearch.kube import names, pod
from exsearch.kube.names import Work
from exsearch.kube.pod import Fields

CONTAINER = "pytorch"
"""The container whose exit code the operator looks at."""
PORT = 23456
PORT_NAME = "pytorchjob-port"


def first_pod(name: str) -> str:
    """The pod that holds rank 0 (c10d orders agents by host name) and the rendezvous."""
    return f"{name}-worker-0"


def pytorch_job(work: Work, cluster: ClusterConfig) -> Fields:
    """The object to create.

    Raises:
        InputError: the number of nodes lies outside the elastic range.
    """
    asked = cluster.training
    spec: Fields = {
        "nprocPerNode": str(pod.processes(cluster)),
        "runPolicy": _run_policy(cluster),
        "pytorchReplicaSpecs": {
            "Worker": {
                "replicas": asked.nodes,
                "restartPolicy": "ExitCode",
                "template": _template(work, cluster),
            }
        },
    }
    if asked.elastic:
        spec["elasticPolicy"] = _elastic_policy(work, cluster)
    manifest = {
        "apiVersion": "kubeflow.org/v1",
        "kind": "PyTorchJob",
        "metadata": names.metadata(work, cluster),
        "spec": spec,
    }
    return names.sealed(manifest, work)


def _run_policy(cluster: ClusterConfig) -> Fields:
    asked = cluster.training
    policy: Fields = {
        # Pods that ended are kept with the job, so that their logs can be read.
        "cleanPodPolicy": "Running",
        "ttlSecondsAfterFinished": asked.keep,
        "activeDeadlineSeconds": asked.deadline,
        "backoffLimit": asked.backoff_limit,
    }
    if cluster.queue:
        policy["suspend"] = True  # until Kueue admits it
    return policy


def _elastic_policy(work: Work, cluster: ClusterConfig) -> Fields:
    elastic = cluster.training.elastic
    assert elastic is not None
    nodes = cluster.training.nodes
    if not elastic.min_nodes <= nodes <= elastic.max_nodes:
        raise InputError(
            f"cluster.training.nodes is {nodes}, outside of elastic's "
            f"{elastic.min_nodes}..{elastic.max_nodes}: it is the number to start with"
        )
    return {
        "minReplicas": elastic.min_nodes,
        "maxReplicas": elastic.max_nodes,
        "maxRestarts": elastic.max_restarts,
        "rdzvBackend": "c10d",
        "rdzvHost": first_pod(work.name),
        "rdzvPort": PORT,
        "rdzvId": work.name,
        "rdzvConf": [
            {"key": "join_timeout", "value": "3600"},
            {"key": "read_timeout", "value": "600"},
        ],
    }


def _meeting(work: Work, cluster: ClusterConfig) -> dict[str, str]:
    asked = cluster.training
    if asked.elastic:
        return dict(pod.FRESH_STORE)
    if asked.nodes == 1:
        return {}
    endpoint = f"{first_pod(work.name)}:{PORT}"
    return pod.rendezvous(work.name, endpoint, asked.backoff_limit)


def _template(work: Work, cluster: ClusterConfig) -> Fields:
    asked = cluster.training
    container = {
        "name": CONTAINER,
        "image": cluster.images.trainer,
        "imagePullPolicy": cluster.images.pull_policy,
        "command": pod.command(work),
        "env": pod.environment(cluster, _meeting(work, cluster)),
        "ports": [{"name": PORT_NAME, "containerPort": PORT}],
        "resources": pod.resources(cluster, asked.resources, asked.extra_resources),
        "securityContext": pod.container_security(),
        "volumeMounts": pod.mounts(cluster),
    }
    spec: Fields = {
        "containers": [container],
        "volumes": pod.volumes(cluster),
        "securityContext": pod.pod_security(),
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        **pod.placement(cluster, work),
        **pod.pull_secrets(cluster),
    }
    if cluster.priority_class:
        spec["priorityClassName"] = cluster.priority_class
    meta = {"labels": names.labels(work, cluster), "annotations": pod.OFF_THE_MESH}
    return {"metadata": meta, "spec": spec}
