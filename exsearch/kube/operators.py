"""The two operators that run training jobs, as far as a launcher has to know them apart."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from exsearch.config import ClusterConfig
from exsearch.errors import InputError
from exsearch.kube import pytorchjob, trainjob
from exsearch.kube.answers import Kind
from exsearch.kube.names import Work

_INDEX = "batch.kubernetes.io/job-completion-index"

State = Literal["waiting", "succeeded", "failed"]


@dataclass(frozen=True)
class Operator:
    """How one operator's jobs are built and read."""

    kind: Kind
    build: Callable[[Work, ClusterConfig], dict[str, Any]]
    """The object that runs a piece of work."""
    container: str
    """Name of the training container in its pods."""
    pod_label: str
    """Label of its pods whose value is the job's name."""
    succeeded: str
    """Condition of a job that is done."""
    leads: Callable[[Mapping[str, Any], str], bool]
    """Whether a pod is the first of the job of that name, which tells of the progress."""

    def state(self, job: Mapping[str, Any]) -> tuple[State, str]:
        """Whether the job is done, and the operator's words about it."""
        for condition in job.get("status", {}).get("conditions") or ():
            if condition["status"] != "True":
                continue
            if condition["type"] == self.succeeded:
                return "succeeded", condition.get("message", "")
            if condition["type"] == "Failed":
                return "failed", condition.get("message", "") or condition.get("reason", "")
        return "waiting", ""


def _first_worker(pod: Mapping[str, Any], job: str) -> bool:
    return pod["metadata"]["name"] == pytorchjob.first_pod(job)


def _first_node(pod: Mapping[str, Any], job: str) -> bool:
    return pod["metadata"].get("labels", {}).get(_INDEX) == "0"


PYTORCHJOB = Operator(
    kind=Kind("kubeflow.org", "v1", "pytorchjobs", "the Kubeflow training operator"),
    build=pytorchjob.pytorch_job,
    container=pytorchjob.CONTAINER,
    pod_label="training.kubeflow.org/job-name",
    succeeded="Succeeded",
    leads=_first_worker,
)

TRAINJOB = Operator(
    kind=Kind("trainer.kubeflow.org", "v1alpha1", "trainjobs", "Kubeflow Trainer 2"),
    build=trainjob.train_job,
    container=trainjob.CONTAINER,
    pod_label="jobset.sigs.k8s.io/jobset-name",
    succeeded="Complete",
    leads=_first_node,
)


def operator(cluster: ClusterConfig) -> Operator:
    """The operator that the settings choose.

    Raises:
        InputError: they choose none.
    """
    known = {"pytorchjob": PYTORCHJOB, "trainjob": TRAINJOB}
    try:
        return known[cluster.training.launcher]
    except KeyError:
        raise InputError(
            f"cluster.training.launcher is {cluster.training.launcher}: no operator runs its jobs"
        ) from None
