"""What must be there for an agent: objects made from its spec and from what it serves. Pure."""

from __future__ import annotations

from typing import Any

from exsearch.config import RunConfig, dump
from exsearch.operator.agent import Agent, Served, settings
from exsearch.operator.kinds import AGENT, APPLIED, Object, reference
from exsearch.operator.pods import metadata, runtime, service
from exsearch.records import canonical_json
from exsearch.storage import digest_bytes


def desired(agent: Agent, served: Served, withdrawn: tuple[str, ...]) -> list[Object]:
    """Every object that is applied for an agent, in the order in which they are: what a pod
    mounts before what starts pods. The claim is `claim`.

    Raises:
        InputError: the model lies where no pod can mount it.
    """
    made = [
        _config_map(agent, settings(agent, withdrawn)),
        runtime(agent),
        service(agent, served),
    ]
    return [_sealed(item) for item in made]


def claim(agent: Agent) -> Object | None:
    """The volume claim, made where there is none; None where the agent keeps all in a bucket.

    Without an owner unless it is to go with the agent: models and indexes outlive it.
    """
    storage = agent.run.cluster.storage
    if not storage.claim:
        return None
    keep = agent.keeping.on_delete == "Retain"
    meta = metadata(agent, storage.claim)
    if keep:
        del meta["ownerReferences"]
    classed = {"storageClassName": storage.storage_class} if storage.storage_class else {}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": meta,
        "spec": {
            "accessModes": [storage.access],
            "resources": {"requests": {"storage": storage.size}},
            **classed,
        },
    }


def claim_owners(agent: Agent, live: Object) -> list[Object] | None:
    """The owners that a claim should have; None where they are right.

    A claim that the operator did not make is used, and never deleted.
    """
    meta = live["metadata"]
    if meta.get("labels", {}).get(AGENT) != agent.name:
        return None
    owners = meta.get("ownerReferences", [])
    others = [owner for owner in owners if owner["uid"] != agent.meta["uid"]]
    mine = [] if agent.keeping.on_delete == "Retain" else [reference(agent.meta)]
    wanted = [*others, *mine]
    return None if wanted == owners else wanted


def holds(wanted: Any, live: Any) -> bool:
    """Whether everything wanted is there; more may be."""
    if isinstance(wanted, dict):
        return isinstance(live, dict) and all(
            key in live and holds(value, live[key]) for key, value in wanted.items()
        )
    if isinstance(wanted, list):
        return (
            isinstance(live, list)
            and len(live) == len(wanted)
            and all(holds(mine, theirs) for mine, theirs in zip(wanted, live, strict=True))
        )
    return wanted == live


def _sealed(item: Object) -> Object:
    """The object with the digest of itself, which tells when another one is wanted."""
    digest = digest_bytes(canonical_json(item).encode())
    meta = item["metadata"]
    annotations = {**meta.get("annotations", {}), APPLIED: digest}
    return {**item, "metadata": {**meta, "annotations": annotations}}


def _config_map(agent: Agent, run: RunConfig) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata(agent, f"{agent.name}-run"),
        "data": {"run.yaml": dump(run)},
    }
