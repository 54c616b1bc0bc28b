"""What the status of a pod says: how it ended, what keeps it from starting. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Pod = Mapping[str, Any]

_KILLED = 128
"""Exit codes from here on are signals: the process was ended from outside."""
_UNMENDABLE = frozenset({
    "ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull",
    "CreateContainerConfigError", "CreateContainerError", "RunContainerError",
})  # fmt: skip
"""Reasons for which a container waits that seldom pass by themselves."""


@dataclass(frozen=True)
class End:
    """How a pod's training container ended, not well."""

    pod: str
    code: int | None
    """Exit code; None where no container got to run (the pod was evicted before)."""
    reason: str
    """The kubelet's word: `Error`, `OOMKilled`, `Evicted`, …"""
    message: str = ""

    @property
    def interrupted(self) -> bool:
        """It was ended from outside and can go on elsewhere; running out of memory cannot."""
        return not self.out_of_memory and (self.code is None or self.code >= _KILLED)

    @property
    def out_of_memory(self) -> bool:
        """The kernel ended it for lack of memory."""
        return self.reason == "OOMKilled"

    def __str__(self) -> str:
        code = "without having run" if self.code is None else f"with exit code {self.code}"
        reason = "" if self.reason in ("", "Error") else f" ({self.reason})"
        said = f": {self.message}" if self.message else ""
        return f"pod {self.pod} ended {code}{reason}{said}"


@dataclass(frozen=True)
class Obstacle:
    """Why a pod does not run yet."""

    pod: str
    reason: str
    message: str

    @property
    def lasting(self) -> bool:
        """Waiting will hardly help. A full cluster, in contrast, may get room again."""
        return self.reason in _UNMENDABLE

    def __str__(self) -> str:
        said = f": {self.message}" if self.message else ""
        return f"pod {self.pod} cannot start ({self.reason}){said}"


def name(pod: Pod) -> str:
    """The pod's name."""
    return pod["metadata"]["name"]


def phase(pod: Pod) -> str:
    """Pending, Running, Succeeded, Failed or Unknown."""
    return pod.get("status", {}).get("phase", "Pending")


def started(pod: Pod) -> bool:
    """Its training container runs or has run."""
    return phase(pod) not in ("Pending", "Unknown")


def over(pod: Pod) -> bool:
    """It will not run any more."""
    return phase(pod) in ("Succeeded", "Failed")


def end(pod: Pod, container: str) -> End | None:
    """How the container ended; None while it has not, and where it ended well."""
    status = pod.get("status", {})
    for found in status.get("containerStatuses") or ():
        ended = found.get("state", {}).get("terminated")
        if found["name"] != container or not ended:
            continue
        if ended["exitCode"] == 0:
            return None
        reason = status.get("reason") or ended.get("reason") or ""
        message = status.get("message") or ended.get("message") or ""
        return End(name(pod), ended["exitCode"], reason, message.strip())
    if phase(pod) == "Failed":
        return End(name(pod), None, status.get("reason", ""), status.get("message", ""))
    return None


def interruption(pod: Pod, container: str) -> End | None:
    """How a pod was ended from outside; None where it runs, ended by itself or was cleaned up.

    Pods that the operator removes at a job's end get a signal, too: they have a time of
    deletion, and no condition that tells of a disruption.
    """
    ended = end(pod, container)
    for condition in pod.get("status", {}).get("conditions") or ():
        if condition["type"] == "DisruptionTarget" and condition["status"] == "True":
            code = ended.code if ended else None
            return End(name(pod), code, condition["reason"], condition.get("message", ""))
    leaving = pod["metadata"].get("deletionTimestamp")
    return ended if ended and ended.interrupted and not leaving else None


def obstacle(pod: Pod) -> Obstacle | None:
    """Why a pod that has not started does not start, as far as its status tells."""
    if phase(pod) != "Pending":
        return None
    status = pod.get("status", {})
    for condition in status.get("conditions") or ():
        unscheduled = condition["type"] == "PodScheduled" and condition["status"] == "False"
        if unscheduled and condition.get("reason") == "Unschedulable":
            return Obstacle(name(pod), "Unschedulable", condition.get("message", ""))
    containers = (status.get("initContainerStatuses"), status.get("containerStatuses"))
    for found in (item for group in containers for item in group or ()):
        waiting = found.get("state", {}).get("waiting") or {}
        if waiting.get("reason") in _UNMENDABLE:
            return Obstacle(name(pod), waiting["reason"], waiting.get("message", ""))
    return None
