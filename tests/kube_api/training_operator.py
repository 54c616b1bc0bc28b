"""Plays training-operator 1.9 for the PyTorchJobs of a namespace.

What it does, and what it leaves undone, is what the operator's own code does: a job with
`restartPolicy: ExitCode` replaces pods that ended with 128 or more as often as it takes
(`backoffLimit` counts only restarts in place, by the kubelet), fails at a lower exit code, and
then has no completion time, so that its time to live never starts. It looks at a job only when
the job or one of its pods changes: a deadline that passes meanwhile is seen at the next change.
"""

from __future__ import annotations

import copy
import time
from datetime import UTC, datetime
from typing import Any

from kubernetes import client

from kube_api import job_pods
from kube_api.cluster import Cluster
from kube_api.player import Player
from kube_api.rest import PODS, PYTORCHJOBS, SERVICES
from kube_api.writing import now

Object = dict[str, Any]


class TrainingOperator(Player):
    """Makes pods and services of PyTorchJobs and tells in their status how they fare.

    Does nothing where a real training-operator runs.

    Args:
        init_container: containers that worker pods wait in, in place of the operator's own
            (its template file); that one is refused by the *restricted* pod-security level.
    """

    def __init__(
        self, cluster: Cluster, namespace: str, init_container: list[Object] | None = None
    ) -> None:
        super().__init__(cluster, namespace)
        self._init_container = init_container
        self._told: set[tuple[str, str]] = set()
        self._seen: dict[str, list[str]] = {}

    def tick(self) -> None:
        if self.cluster.plays_training_operator:
            return
        for job in self.rest.list(PYTORCHJOBS):
            if job["metadata"].get("deletionTimestamp"):
                continue
            manager = job["spec"].get("runPolicy", {}).get("managedBy")
            if manager in (None, "kubeflow.org/training-operator"):
                pods = self.rest.list(PODS, job_pods.selector(job))
                uid = job["metadata"]["uid"]
                now_there = [each["metadata"]["resourceVersion"] for each in (job, *pods)]
                if self._seen.get(uid) != now_there or _expires(job):
                    self._reconcile(job_pods.with_defaults(job), job, pods)
                    self._seen[uid] = now_there

    def _reconcile(self, job: Object, stored: Object, pods: list[Object]) -> None:
        status = copy.deepcopy(stored.get("status") or {})
        policy = job["spec"]["runPolicy"]
        name = job["metadata"]["name"]
        if not status.get("conditions"):
            _tell(status, "Created", f"PyTorchJob {name} is created.")
        if _is(status, "Succeeded") or _is(status, "Failed"):
            self._clean(policy, status, pods, name)
        elif policy.get("suspend"):
            self._suspend(status, pods, name)
        elif limit := _limit(job, status, pods):
            status.setdefault("completionTime", now())
            self._delete(pods)
            _tell(status, "Failed", f"Job {name} has failed because it {limit}")
        else:
            if _is(status, "Suspended"):
                _tell(status, "Suspended", f"PyTorchJob {name} is resumed.", "Resumed", "False")
                status["startTime"] = now()
            for role in job["spec"]["pytorchReplicaSpecs"]:
                self._replicas(job, role, status, pods)
            _judge(job, status)
        if status != (stored.get("status") or {}):
            self.rest.put(PYTORCHJOBS, f"{name}/status", {**stored, "status": status})

    def _replicas(self, job: Object, role: str, status: Object, pods: list[Object]) -> None:
        """Make the pods and services of a role that are missing, replace pods that may be."""
        replica = job["spec"]["pytorchReplicaSpecs"][role]
        mine = {p["metadata"]["name"]: p for p in pods if _role(p) == role.lower()}
        count = {"active": 0, "succeeded": 0, "failed": 0}
        services = {
            s["metadata"]["name"] for s in self.rest.list(SERVICES, job_pods.selector(job, role))
        }
        for index in range(replica["replicas"]):
            name = job_pods.name(job, role, index)
            pod = mine.pop(name, None)
            if pod is None:
                self._make(job, job_pods.pod(job, role, index, self._init_container))
            else:
                self._judge_pod(job, role, replica["restartPolicy"], status, pod)
                _count(count, pod)
            if name not in services:
                self.rest.create(SERVICES, job_pods.service(job, role, index))
        self._delete(list(mine.values()))
        told = status.setdefault("replicaStatuses", {})
        told[role] = {"selector": job_pods.selector(job, role),
                      **{k: v for k, v in count.items() if v}}  # fmt: skip

    def _make(self, job: Object, pod: Object) -> None:
        try:
            self.rest.create(PODS, pod)
        except client.ApiException as refused:
            if refused.status != 403:
                raise
            key = job["metadata"]["uid"], pod["metadata"]["name"]
            if key not in self._told:
                self._told.add(key)
                text = f"Error creating: {_message(refused)}"
                self.rest.event(job, "PyTorchJob", "FailedCreatePod", text)
            raise  # to be tried again

    def _judge_pod(self, job: Object, role: str, policy: str, status: Object, pod: Object) -> None:
        if pod["status"].get("phase") != "Failed":
            return
        code = _exit_code(pod)
        name = job["metadata"]["name"]
        if policy in ("OnFailure", "Always") or (policy == "ExitCode" and code >= 128):
            self.rest.delete(PODS, pod["metadata"]["name"])
            text = f"job {name} is restarting because {role} replica(s) failed."
            _tell(status, "Restarting", text)
        elif policy == "ExitCode":
            _tell(status, "Failed", f'job "{name}" is failing because "{role}" replica(s) failed.')

    def _suspend(self, status: Object, pods: list[Object], name: str) -> None:
        self._delete(pods)
        for counted in status.get("replicaStatuses", {}).values():
            counted.pop("active", None)
        text = f"PyTorchJob {name} is suspended."
        if _is(status, "Running"):
            _tell(status, "Running", text, "Suspended", "False")
        if not _is(status, "Suspended"):
            _tell(status, "Suspended", text)

    def _clean(self, policy: Object, status: Object, pods: list[Object], name: str) -> None:
        rule = policy["cleanPodPolicy"]
        if rule != "None":
            running = ("Running", "Pending")
            self._delete([p for p in pods if rule == "All" or p["status"]["phase"] in running])
        for counted in status.get("replicaStatuses", {}).values():
            if _is(status, "Succeeded") and counted.get("active"):
                counted["succeeded"] = counted.get("succeeded", 0) + counted.pop("active")
        alive, ended = policy.get("ttlSecondsAfterFinished"), status.get("completionTime")
        if alive is not None and ended and _seconds_since(ended) > alive:
            self.rest.delete(PYTORCHJOBS, name)

    def _delete(self, pods: list[Object]) -> None:
        for pod in pods:
            if not pod["metadata"].get("deletionTimestamp"):
                self.rest.delete(PODS, pod["metadata"]["name"])
                self.rest.delete(SERVICES, pod["metadata"]["name"])


def _judge(job: Object, status: Object) -> None:
    """The job's conditions, from how many of its replicas run, ended and failed."""
    status.setdefault("startTime", now())
    specs = job["spec"]["pytorchReplicaSpecs"]
    name = job["metadata"]["name"]
    for role, replica in specs.items():
        counted = status["replicaStatuses"][role]
        running, succeeded = counted.get("active", 0), counted.get("succeeded", 0)
        failed, wanted = counted.get("failed", 0), replica["replicas"]
        if role == ("Master" if "Master" in specs else "Worker"):
            elastic = role == "Worker" and job["spec"].get("elasticPolicy") and succeeded
            if succeeded == wanted or elastic:
                status.setdefault("completionTime", now())
                _tell(status, "Succeeded", f"PyTorchJob {name} is successfully completed.")
                return
            if running:
                _tell(status, "Running", f"PyTorchJob {name} is running.")
        if failed and wanted > succeeded + running:
            if replica["restartPolicy"] != "Never":
                text = f"PyTorchJob {name} is restarting because {failed} {role} replica(s) failed."
                _tell(status, "Restarting", text)
            else:
                status.setdefault("completionTime", now())
                text = f"PyTorchJob {name} is failed because {failed} {role} replica(s) failed."
                _tell(status, "Failed", text)


def _limit(job: Object, status: Object, pods: list[Object]) -> str:
    """Which limit of its run policy a job is past; empty where none."""
    policy = job["spec"]["runPolicy"]
    allowed = policy.get("backoffLimit")
    if allowed is not None:
        restarts = sum(
            container.get("restartCount", 0)
            for pod in pods
            if pod["status"].get("phase") == "Running"
            for container in pod["status"].get("containerStatuses") or ()
        )
        failed = sum(pod["status"].get("phase") == "Failed" for pod in pods)
        known = sum(r.get("failed", 0) for r in status.get("replicaStatuses", {}).values())
        if (restarts >= max(allowed, 1)) or (allowed == 0 and failed > known):
            return "has reached the specified backoff limit"
    active, start = policy.get("activeDeadlineSeconds"), status.get("startTime")
    if active is not None and start and _seconds_since(start) >= active:
        return "was active longer than specified deadline"
    return ""


def _tell(status: Object, kind: str, message: str, reason: str = "", truth: str = "True") -> None:
    """Set a condition as the operator does: a failed job's stay as they are."""
    if _is(status, "Failed"):
        return
    reason = f"PyTorchJob{reason or kind}"
    conditions = status.setdefault("conditions", [])
    old = next((c for c in conditions if c["type"] == kind), None)
    if old and (old["status"], old["reason"]) == (truth, reason):
        return
    changed = old["lastTransitionTime"] if old and old["status"] == truth else now()
    rivals = {"Restarting": "Running", "Running": "Restarting"}
    kept = [c for c in conditions if c["type"] not in (kind, rivals.get(kind))]
    if kind in ("Failed", "Succeeded"):
        kept = [{**c, "status": "False"} if c["type"] == "Running" else c for c in kept]
    status["conditions"] = [
        *kept,
        {
            "type": kind,
            "status": truth,
            "reason": reason,
            "message": message,
            "lastUpdateTime": now(),
            "lastTransitionTime": changed,
        },
    ]


def _is(status: Object, kind: str) -> bool:
    return any(c["type"] == kind and c["status"] == "True" for c in status.get("conditions") or ())


def _role(pod: Object) -> str:
    return pod["metadata"]["labels"]["training.kubeflow.org/replica-type"]


def _count(count: dict[str, int], pod: Object) -> None:
    match pod["status"].get("phase"):
        case "Running":
            leaving = pod["metadata"].get("deletionTimestamp")
            count["failed" if leaving else "active"] += 1
        case "Succeeded":
            count["succeeded"] += 1
        case "Failed":
            count["failed"] += 1


def _exit_code(pod: Object) -> int:
    """Of the container `pytorch`; 0xbeef where it has none, as in the operator."""
    for container in pod["status"].get("containerStatuses") or ():
        ended = container["state"].get("terminated")
        if container["name"] == job_pods.CONTAINER and ended:
            return ended["exitCode"]
    return 0xBEEF


def _message(error: client.ApiException) -> str:
    import json

    return json.loads(error.body or "{}").get("message", str(error))


def _expires(job: Object) -> bool:
    """A finished job with a time to live: looked at again when that is over."""
    policy = job["spec"].get("runPolicy") or {}
    ended = (job.get("status") or {}).get("completionTime")
    return policy.get("ttlSecondsAfterFinished") is not None and bool(ended)


def _seconds_since(stamp: str) -> float:
    then = datetime.strptime(stamp, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    return time.time() - then.timestamp()
