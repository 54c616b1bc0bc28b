"""The parts of a training pod that both operators' jobs are made of. Pure.

Pods run as user 1000 under the *restricted* security level: nothing of the image can be
written, so the shared volume, `/dev/shm` and `/tmp` are all the places a process has.
"""

from __future__ import annotations

from typing import Any

from exsearch.config import ClusterConfig, Resources
from exsearch.kube.names import JOB, Work

Fields = dict[str, Any]

USER = 1000
"""User, group and owner of the volumes' files."""
SHARED, MEMORY, SCRATCH = "shared", "shm", "scratch"
"""Names of the volumes."""
OFF_THE_MESH = {"sidecar.istio.io/inject": "false"}
"""Annotation of pods: a sidecar would intercept the collectives and outlive the training."""


def command(work: Work) -> list[str]:
    """The training container's command line; torchrun reads the rest from PET_* variables."""
    return ["torchrun", "-m", "exsearch.training.main", work.job_file]


def processes(cluster: ClusterConfig) -> int:
    """Processes of a pod: one for each GPU, or one."""
    return max(1, cluster.training.resources.gpus)


def environment(cluster: ClusterConfig, more: dict[str, str]) -> list[Fields]:
    """The container's variables, each name once.

    Args:
        more: what the operator does not set; `training.environment` wins over it.
    """
    plain = {
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "TOKENIZERS_PARALLELISM": "false",
        # No passwd entry names user 1000: libraries that look for one are told here.
        "HOME": "/tmp",
        "USER": "exsearch",
        "NCCL_DEBUG": "WARN",
        **more,
        **cluster.training.environment,
    }
    values = [{"name": name, "value": value} for name, value in plain.items()]
    return [*values, *_credentials(cluster, set(plain))]


def _credentials(cluster: ClusterConfig, taken: set[str]) -> list[Fields]:
    """Variables from the Secret of the object store, those of its keys that exist."""
    secret = cluster.storage.secret
    keys = [key for key in cluster.storage.secret_keys if key not in taken] if secret else []
    return [
        {
            "name": key,
            "valueFrom": {"secretKeyRef": {"name": secret, "key": key, "optional": True}},
        }
        for key in keys
    ]


def resources(cluster: ClusterConfig, asked: Resources, extra: dict[str, str]) -> Fields:
    """Requests and limits. The processor has no limit: throttling only slows a pod down."""
    fixed = {"memory": asked.memory, **extra}
    if asked.gpus:
        fixed[cluster.gpu] = str(asked.gpus)
    return {"requests": {"cpu": asked.cpu, **fixed}, "limits": fixed}


def container_security() -> Fields:
    """A container's security context."""
    return {
        "allowPrivilegeEscalation": False,
        "privileged": False,
        "readOnlyRootFilesystem": True,
        "runAsNonRoot": True,
        "capabilities": {"drop": ["ALL"]},
    }


def pod_security() -> Fields:
    """A pod's security context."""
    return {
        "runAsNonRoot": True,
        "runAsUser": USER,
        "runAsGroup": USER,
        "fsGroup": USER,
        # Changing the owner of every file of a large volume can take an hour.
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def volumes(cluster: ClusterConfig) -> list[Fields]:
    """The claim, memory for /dev/shm, and scratch space."""
    memory = {"medium": "Memory", "sizeLimit": cluster.training.shared_memory}
    found: list[Fields] = [
        {"name": MEMORY, "emptyDir": memory},
        {"name": SCRATCH, "emptyDir": {"sizeLimit": cluster.storage.scratch}},
    ]
    if cluster.storage.claim:
        claim = {"claimName": cluster.storage.claim}
        found.append({"name": SHARED, "persistentVolumeClaim": claim})
    return found


def mounts(cluster: ClusterConfig) -> list[Fields]:
    """Where the volumes are mounted."""
    found = [
        {"name": MEMORY, "mountPath": "/dev/shm"},
        {"name": SCRATCH, "mountPath": "/tmp"},
    ]
    if cluster.storage.claim:
        found.append({"name": SHARED, "mountPath": cluster.storage.mount})
    return found


def placement(cluster: ClusterConfig, work: Work) -> Fields:
    """Fields of a pod's spec that say on which nodes it may run."""
    asked = cluster.training
    selector = {**cluster.node_selector, **(cluster.gpu_selector if asked.resources.gpus else {})}
    found: Fields = {}
    if selector:
        found["nodeSelector"] = selector
    if cluster.tolerations:
        found["tolerations"] = [
            toleration.model_dump(exclude_defaults=True) | {"operator": toleration.operator}
            for toleration in cluster.tolerations
        ]
    if asked.nodes > 1 or asked.elastic:
        found["affinity"] = _together(work)
    return found


def _together(work: Work) -> Fields:
    """A preference for one zone: every optimizer step waits for the slowest link."""
    term = {
        "labelSelector": {"matchLabels": {JOB: work.name}},
        "topologyKey": "topology.kubernetes.io/zone",
    }
    preferred = [{"weight": 100, "podAffinityTerm": term}]
    return {"podAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": preferred}}


def pull_secrets(cluster: ClusterConfig) -> Fields:
    """`imagePullSecrets`, where there are any."""
    names = cluster.images.pull_secrets
    return {"imagePullSecrets": [{"name": name} for name in names]} if names else {}


def rendezvous(name: str, endpoint: str, restarts: int) -> dict[str, str]:
    """How torchrun's agents meet, and meet again after a pod was replaced.

    torchrun's own default (static) cannot: the agent of a replaced pod begins at its first
    try while the others are at their second, and they wait for one another for ever. Under
    c10d the survivors' processes, which die with the lost one, are started again as soon as
    the replacement has joined.

    Args:
        endpoint: `HOST:PORT` of the first pod, which keeps the meeting's state.
        restarts: times an agent starts its processes again.
    """
    return {
        "PET_RDZV_BACKEND": "c10d",
        "PET_RDZV_ENDPOINT": endpoint,
        "PET_RDZV_ID": name,
        # A new node may first have to be made and fetch the image.
        "PET_RDZV_CONF": "join_timeout=3600,read_timeout=600",
        "PET_MAX_RESTARTS": str(restarts),
        **FRESH_STORE,
    }


FRESH_STORE = {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
"""Each try's processes meet in a store of their own, without the addresses of the try before."""
