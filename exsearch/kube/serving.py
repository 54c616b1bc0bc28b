"""The InferenceService as it is: its model, whether it is ready, who gets the traffic."""

from __future__ import annotations

import asyncio
from typing import Any

from exsearch.config import ClusterConfig
from exsearch.kube.answers import Kind
from exsearch.kube.client import Api, Object
from exsearch.records import Record

SERVICES = Kind("serving.kserve.io", "v1beta1", "inferenceservices", "KServe")
RUN, DIGEST = "exsearch.dev/run", "exsearch.dev/model-digest"
"""Annotations of an InferenceService: what it serves came from where."""
MODE = "serving.kserve.io/deploymentMode"
"""KServe's annotation: Deployments (`Standard`) or Knative."""
STANDARD, SPLITTING = "Standard", frozenset({"Knative", "Serverless"})
"""KServe's own default, and the modes that split traffic between revisions; the second of them
is the older name."""
PATIENCE = 20.0
"""Seconds for which a person who asks is kept waiting for the API."""


class Traffic(Record):
    """A revision's share of the requests."""

    revision: str
    """Its name; the predictor's Deployment where there are no revisions."""
    percent: int
    latest: bool = False
    """It is the newest one that is ready."""
    tag: str = ""
    url: str = ""
    """Address of this revision alone; empty: it has none."""


class Service(Record):
    """An InferenceService, as far as one asks for it day by day."""

    namespace: str
    name: str
    mode: str
    """`Standard` or `Knative`."""
    model: str
    """Its `storageUri`."""
    run: str
    """The run whose promotion it serves; empty: none yet."""
    digest: str
    """Digest of that model; empty: none yet."""
    ready: bool
    why: str
    """What stands in the way of being ready; empty: nothing."""
    url: str
    canary_percent: int | None
    """Share of the newest revision while a canary is on."""
    traffic: tuple[Traffic, ...]


def mode(service: Object) -> str:
    """The mode KServe runs it in: what it reports, else what it was told, else its default."""
    told = service["metadata"].get("annotations", {}).get(MODE, "")
    return service.get("status", {}).get("deploymentMode") or told or STANDARD


def splits_traffic(service: Object) -> bool:
    """Whether `canaryTrafficPercent` means anything to it."""
    return mode(service) in SPLITTING


def find_service(cluster: ClusterConfig) -> Service | None:
    """The InferenceService of `cluster.deploy`; None where there is none, or none is named.

    Raises:
        InputError: no cluster is configured, or its API refuses.
        ExSearchError: the API does not answer.
    """
    found = asyncio.run(get_service(cluster)) if cluster.deploy.name else None
    return None if found is None else read_service(found)


async def get_service(cluster: ClusterConfig) -> Object | None:
    """The InferenceService of `cluster.deploy` as the API has it; None where there is none."""
    async with Api.open(patience=PATIENCE) as api:
        return await api.get(SERVICES, space(cluster), cluster.deploy.name)


def space(cluster: ClusterConfig) -> str:
    """Its namespace."""
    return cluster.deploy.namespace or cluster.namespace


def canary_on(service: Object) -> bool:
    """Whether its traffic is split between the newest revision and the one before."""
    share = service["spec"]["predictor"].get("canaryTrafficPercent")
    return splits_traffic(service) and share is not None


def read_service(item: Object) -> Service:
    """What an InferenceService (v1beta1, as JSON) says of itself."""
    meta, status = item["metadata"], item.get("status", {})
    predictor = item["spec"]["predictor"]
    annotations = meta.get("annotations", {})
    ready, why = _readiness(status.get("conditions", []))
    return Service(
        namespace=meta["namespace"],
        name=meta["name"],
        mode=mode(item),
        model=predictor.get("model", {}).get("storageUri", ""),
        run=annotations.get(RUN, ""),
        digest=annotations.get(DIGEST, ""),
        ready=ready,
        why=why,
        url=status.get("url", ""),
        canary_percent=predictor.get("canaryTrafficPercent"),
        traffic=tuple(_traffic(status.get("components", {}).get("predictor", {}))),
    )


def _readiness(conditions: list[dict[str, Any]]) -> tuple[bool, str]:
    """The condition Ready, and the words of whatever is not."""
    ready = any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)
    if ready:
        return True, ""
    words = [
        ": ".join(part for part in (c["type"], c.get("reason", ""), c.get("message", "")) if part)
        for c in conditions
        if c["status"] != "True" and c["type"] != "Ready"
    ]
    return False, "; ".join(words) or "KServe has not reported on it yet"


def _traffic(component: dict[str, Any]) -> list[Traffic]:
    return [
        Traffic(
            revision=target.get("revisionName", ""),
            percent=target.get("percent", 0),
            latest=target.get("latestRevision", False),
            tag=target.get("tag", ""),
            url=target.get("url", ""),
        )
        for target in component.get("traffic", [])
    ]
