"""Kinds, names and annotations that the operator knows."""

from __future__ import annotations

from typing import Any

from exsearch.kube.answers import Kind
from exsearch.kube.deploy import AGENTS, PROMOTION
from exsearch.kube.serving import SERVICES

Object = dict[str, Any]

GROUP, VERSION, KIND = "exsearch.dev", "v1alpha1", "SearchAgent"
CONFIG_MAPS = Kind("", "v1", "configmaps")
CLAIMS = Kind("", "v1", "persistentvolumeclaims")
RUNTIMES = Kind("serving.kserve.io", "v1alpha1", "servingruntimes", "KServe")
LEASES = Kind("coordination.k8s.io", "v1", "leases")

OWNED = {
    "ConfigMap": CONFIG_MAPS,
    "PersistentVolumeClaim": CLAIMS,
    "ServingRuntime": RUNTIMES,
    "InferenceService": SERVICES,
}
"""Kinds of the objects that an agent owns, by what their `kind` says."""

MANAGER = "exsearch-operator"
"""Field manager of everything applied, and source of the events."""
FINALIZER = f"{GROUP}/searchagent"
AGENT = f"{GROUP}/agent"
"""Label of an owned object: the agent's name."""
APPLIED = f"{GROUP}/applied"
"""Annotation of an owned object: digest of what was last applied."""
SETTINGS = f"{GROUP}/settings"
"""Annotation of the predictor's pods: digest of the settings that they read when they start."""

ROLLBACK = f"{GROUP}/rollback"
"""Annotation of an agent: a person wants the model in service withdrawn, for this reason."""
WITHDRAW = f"{GROUP}/withdraw"
"""Annotation of an agent: what a rollback was found to mean, `DIGEST REASON`. It names the model,
so that carrying it out twice is carrying it out once."""
PROMOTE = f"{GROUP}/promote"
"""Annotation of an agent: a person ends the trial of the candidate."""
REQUESTS = (PROMOTION, ROLLBACK, WITHDRAW, PROMOTE)


def reference(agent: Object) -> Object:
    """The owner reference to an agent.

    Args:
        agent: its `metadata`.
    """
    return {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": KIND,
        "name": agent["name"],
        "uid": agent["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }


__all__ = [
    "AGENT", "AGENTS", "APPLIED", "CLAIMS", "CONFIG_MAPS", "FINALIZER", "GROUP", "KIND", "LEASES",
    "MANAGER", "OWNED", "PROMOTE", "PROMOTION", "REQUESTS", "ROLLBACK", "RUNTIMES", "SETTINGS",
    "VERSION", "WITHDRAW", "Object", "reference",
]  # fmt: skip
