"""Pods and services that training-operator 1.9 makes of a PyTorchJob: pure functions."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

Object = dict[str, Any]

PORT = 23456
PORT_NAME = "pytorchjob-port"
CONTAINER = "pytorch"
_LABEL = "training.kubeflow.org"


def with_defaults(job: Object) -> Object:
    """A job with the operator's defaults: one replica, OnFailure, the port, `auto` processes."""
    job = copy.deepcopy(job)
    spec = job["spec"]
    spec.setdefault("runPolicy", {}).setdefault("cleanPodPolicy", "None")
    for replica in spec["pytorchReplicaSpecs"].values():
        replica.setdefault("replicas", 1)
        replica.setdefault("restartPolicy", "OnFailure")
        for container in replica["template"]["spec"]["containers"]:
            ports = container.setdefault("ports", [])
            if container["name"] == CONTAINER and not any(
                p.get("name") == PORT_NAME for p in ports
            ):
                ports.append({"name": PORT_NAME, "containerPort": PORT})
    elastic = spec.get("elasticPolicy")
    if elastic is not None:
        workers = spec["pytorchReplicaSpecs"].get("Worker", {}).get("replicas", 1)
        known = elastic.get("minReplicas"), elastic.get("maxReplicas")
        elastic["minReplicas"] = known[0] or known[1] or workers
        elastic["maxReplicas"] = known[1] or known[0] or workers
    if not (elastic or {}).get("nProcPerNode"):
        spec.setdefault("nprocPerNode", "auto")
    return job


def labels(job: Object, role: str, index: int) -> dict[str, str]:
    """The labels of a replica's pod; its service has all but the last."""
    kept = {
        f"{_LABEL}/operator-name": "pytorchjob-controller",
        f"{_LABEL}/job-name": job["metadata"]["name"],
        f"{_LABEL}/replica-type": role.lower(),
        f"{_LABEL}/replica-index": str(index),
    }
    first = "Master" if "Master" in job["spec"]["pytorchReplicaSpecs"] else "Worker"
    if role == first and index == 0:
        kept[f"{_LABEL}/job-role"] = "master"
    return kept


def selector(job: Object, role: str = "") -> str:
    """The label selector of a job's pods, of all roles or one."""
    text = (
        f"{_LABEL}/job-name={job['metadata']['name']},{_LABEL}/operator-name=pytorchjob-controller"
    )
    return f"{text},{_LABEL}/replica-type={role.lower()}" if role else text


def name(job: Object, role: str, index: int) -> str:
    """`JOB-master-0`, `JOB-worker-3`."""
    return f"{job['metadata']['name']}-{role.lower()}-{index}"


def pod(job: Object, role: str, index: int, init_container: list[Object] | None = None) -> Object:
    """The pod of one replica.

    Args:
        job: with defaults.
        role: `Master` or `Worker`.
        init_container: what the operator's template says, in place of the built-in container
            that waits for the master's name. The built-in one has no security context: the
            *restricted* level refuses the worker pods that hold it.
    """
    replica = job["spec"]["pytorchReplicaSpecs"][role]
    template = copy.deepcopy(replica["template"])
    spec = template["spec"]
    for container in spec["containers"]:
        container["env"] = [
            *(container.get("env") or []),
            *({"name": k, "value": v} for k, v in environment(job, role, index)),
        ]
    masters = "Master" in job["spec"]["pytorchReplicaSpecs"]
    if role == "Worker" and masters:
        waiting = [_waiting(job)] if init_container is None else init_container
        spec["initContainers"] = [*(spec.get("initContainers") or []), *waiting]
    policy = replica["restartPolicy"]
    spec["restartPolicy"] = "Never" if policy == "ExitCode" else policy
    meta = dict(template.get("metadata") or {})
    meta["labels"] = {**(meta.get("labels") or {}), **labels(job, role, index)}
    meta |= {"name": name(job, role, index), "ownerReferences": [_owner(job)]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec}


def service(job: Object, role: str, index: int) -> Object:
    """The headless service of one replica."""
    kept = labels(job, role, index)
    kept.pop(f"{_LABEL}/job-role", None)
    containers = job["spec"]["pytorchReplicaSpecs"][role]["template"]["spec"]["containers"]
    ports = [
        {"name": port["name"], "port": port["containerPort"]}
        for container in containers
        if container["name"] == CONTAINER
        for port in container["ports"]
    ]
    meta = {"name": name(job, role, index), "labels": kept, "ownerReferences": [_owner(job)]}
    spec = {"clusterIP": "None", "selector": kept, "ports": ports}
    return {"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": spec}


def environment(job: Object, role: str, index: int) -> Iterator[tuple[str, str]]:
    """What the operator adds to every container's environment, in its order."""
    spec = job["spec"]
    replicas = spec["pytorchReplicaSpecs"]
    nodes = sum(replica["replicas"] for replica in replicas.values())
    processes = spec.get("nprocPerNode")
    yield "PYTHONUNBUFFERED", "1"
    if "Master" in replicas:
        master, port = name(job, "Master", 0), str(_port(job, "Master"))
        yield from (("MASTER_PORT", port), ("PET_MASTER_PORT", port))
        yield from (("MASTER_ADDR", master), ("PET_MASTER_ADDR", master))
        each = int(processes) if processes and processes.isdigit() else 1
        # The operator's RANK is the node's, whatever the processes of a node.
        rank = str(index + 1 if role == "Worker" else index)
        yield "WORLD_SIZE", str(nodes * each)
        yield from (("RANK", rank), ("PET_NODE_RANK", rank))
    if processes:
        yield "PET_NPROC_PER_NODE", processes
    if spec.get("elasticPolicy") is None:
        yield "PET_NNODES", str(nodes)
    else:
        yield from _elastic(job, spec["elasticPolicy"])


def _elastic(job: Object, policy: Object) -> Iterator[tuple[str, str]]:
    host = policy.get("rdzvHost") or name(job, "Worker", 0)
    yield "PET_RDZV_ENDPOINT", f"{host}:{policy.get('rdzvPort') or _port(job, 'Worker')}"
    yield "PET_RDZV_BACKEND", policy.get("rdzvBackend") or "c10d"
    yield "PET_NNODES", f"{policy['minReplicas']}:{policy['maxReplicas']}"
    if policy.get("maxRestarts") is not None:
        yield "PET_MAX_RESTARTS", str(policy["maxRestarts"])
    if policy.get("nProcPerNode") is not None:
        yield "PET_NPROC_PER_NODE", str(policy["nProcPerNode"])
    if policy.get("rdzvId") is not None:
        yield "PET_RDZV_ID", policy["rdzvId"]
    if policy.get("rdzvConf"):
        pairs = ",".join(f"{c['key']}={c['value']}" for c in policy["rdzvConf"])
        yield "PET_RDZV_CONF", pairs
    if policy.get("standalone"):
        yield "PET_STANDALONE", ""


def _port(job: Object, role: str) -> int:
    containers = job["spec"]["pytorchReplicaSpecs"][role]["template"]["spec"]["containers"]
    return next(
        port["containerPort"]
        for container in containers
        if container["name"] == CONTAINER
        for port in container["ports"]
        if port.get("name") == PORT_NAME
    )


def _waiting(job: Object) -> Object:
    master = name(job, "Master", 0)
    script = f"until nslookup {master}; do echo waiting for master; sleep 2; done"
    return {
        "name": "init-pytorch",
        "image": "alpine:3.10",
        "imagePullPolicy": "IfNotPresent",
        "resources": {
            "limits": {"cpu": "100m", "memory": "20Mi"},
            "requests": {"cpu": "50m", "memory": "10Mi"},
        },
        "command": ["sh", "-c", script],
    }


def _owner(job: Object) -> Object:
    meta = job["metadata"]
    return {
        "apiVersion": job["apiVersion"],
        "kind": job["kind"],
        "name": meta["name"],
        "uid": meta["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }
