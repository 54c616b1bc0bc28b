"""Point the InferenceService at another model: a newly promoted one, or the one before; or hand
a promotion over to the SearchAgent whose operator does it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

from exsearch.config import ClusterConfig, StorageConfig
from exsearch.em.champion import Promotion
from exsearch.errors import InputError
from exsearch.kube.answers import Kind, Refused
from exsearch.kube.client import Api, Object
from exsearch.kube.serving import (
    DIGEST,
    RUN,
    SERVICES,
    canary_on,
    get_service,
    mode,
    space,
    splits_traffic,
)
from exsearch.storage import is_remote

Tell = Callable[[str], None]

AGENTS = Kind(
    "exsearch.dev", "v1alpha1", "searchagents", "the SearchAgent definition (exsearch operator crd)"
)
PROMOTION = "exsearch.dev/promotion"
"""Annotation of a SearchAgent: a `Promotion` as JSON, which its operator takes over."""


def serve(
    new: Promotion,
    cluster: ClusterConfig,
    tell: Tell,
    *,
    canary: bool = True,
    dry_run: bool = False,
) -> None:
    """Patch the InferenceService's `storageUri`; does nothing where none is configured.

    Args:
        canary: give the model `cluster.deploy.canary_percent` of the traffic, if that is set;
            otherwise it gets all.
        dry_run: say what would be patched, and patch nothing.

    Raises:
        InputError: the model lies where no pod can mount it, or the patch is refused.
        ExSearchError: the API server does not answer.
    """
    if not cluster.deploy.name:
        return
    share = cluster.deploy.canary_percent if canary else 0
    service = _patch(cluster, service_patch(new, cluster, share or None), tell, dry_run)
    if service is None:
        return
    if share and not splits_traffic(service):
        tell(
            f"cluster.deploy.canary_percent is {share}, but {cluster.deploy.name} runs in mode "
            f"{mode(service)}, which does not split traffic: the new model gets all of it. For "
            "canaries use manifests/components/knative"
        )
    tell(f"InferenceService {_named(cluster)} serves {new.model} from here on")


def hand_over(new: Promotion, cluster: ClusterConfig, tell: Tell) -> None:
    """Give a promotion to the SearchAgent `cluster.deploy.agent`, whose operator serves it.

    Doing it twice is doing it once: the operator knows a model by its digest.

    Raises:
        InputError: the model lies where no pod can mount it, there is no such SearchAgent, or
            the account may not change it.
        ExSearchError: the API server does not answer.
    """
    storage_uri(new.model, cluster.storage)
    space_, name = space(cluster), cluster.deploy.agent
    change = {"metadata": {"annotations": {PROMOTION: new.model_dump_json()}}}
    if asyncio.run(_annotate(space_, name, change)) is None:
        raise InputError(
            f"there is no SearchAgent {name} in namespace {space_} to hand {new.model} over to. "
            "If it was deleted, delete its recurring run in Kubeflow Pipelines, too"
        )
    tell(f"SearchAgent {space_}/{name} takes {new.model} over")


async def _annotate(namespace: str, name: str, change: Object) -> Object | None:
    """None where there is no agent of that name."""
    async with Api.open() as api:
        try:
            return await api.patch(AGENTS, namespace, name, change)
        except Refused as error:
            if error.status != 404:
                raise
            return None


def restore(old: Promotion, cluster: ClusterConfig, tell: Tell, *, dry_run: bool = False) -> None:
    """Serve an earlier model again; does nothing where no InferenceService is configured.

    While a canary is on, the revision before it still runs: all traffic goes there at once
    (a share of 0). Without a share, Knative would give everything to the newest revision that
    is ready, which is the canary until the restored model has loaded.

    Args:
        dry_run: say what would be patched, and patch nothing.

    Raises:
        InputError: the model lies where no pod can mount it, or the API refuses.
        ExSearchError: the API server does not answer.
    """
    if not cluster.deploy.name:
        return
    before = asyncio.run(get_service(cluster))
    back = before is not None and canary_on(before)
    change = service_patch(old, cluster, 0 if back else None)
    if _patch(cluster, change, tell, dry_run) is None:
        return
    tell(f"InferenceService {_named(cluster)} goes back to {old.model}")
    if back:
        tell(
            "the canary is over: its predecessor has all the traffic. Once the restored model's "
            "own revision is ready, `exsearch agent promote` moves it there"
        )


def _patch(cluster: ClusterConfig, change: Object, tell: Tell, dry_run: bool) -> Object | None:
    """The service as it is now; None where there is none, or nothing was to be done."""
    if dry_run:
        tell(f"would patch InferenceService {_named(cluster)}: {json.dumps(change)}")
        return None
    service = asyncio.run(_send(cluster, change))
    if service is None:
        tell(
            f"there is no InferenceService {cluster.deploy.name} in namespace {space(cluster)} "
            "yet; the champion's record names the model it is to serve"
        )
    return service


async def _send(cluster: ClusterConfig, change: Object) -> Object | None:
    """None where there is no service of that name."""
    async with Api.open() as api:
        try:
            return await api.patch(SERVICES, space(cluster), cluster.deploy.name, change)
        except Refused as error:
            if error.status != 404:
                raise
            return None


def _named(cluster: ClusterConfig) -> str:
    return f"{space(cluster)}/{cluster.deploy.name}"


def service_patch(model: Promotion, cluster: ClusterConfig, share: int | None) -> dict[str, Any]:
    """The merge patch that makes an InferenceService serve this model.

    Args:
        share: percent of the traffic that the new revision gets, in a mode that splits it;
            the one before keeps the rest. None: the new one takes all.

    Raises:
        InputError: the model is on a disk of this pod only.
    """
    predictor: dict[str, Any] = {
        "model": {"storageUri": storage_uri(model.model, cluster.storage)},
        "canaryTrafficPercent": share,
    }
    annotations = {RUN: model.run, DIGEST: model.digest}
    return {"metadata": {"annotations": annotations}, "spec": {"predictor": predictor}}


def storage_uri(model: str, storage: StorageConfig) -> str:
    """Where KServe's storage initialiser finds a model: a URL, or `pvc://CLAIM/PATH`.

    Raises:
        InputError: the model is on a disk of this pod only.
    """
    if is_remote(model):
        return model
    mount = f"{storage.mount.rstrip('/')}/"
    if storage.claim and model.startswith(mount):
        return f"pvc://{storage.claim}/{model.removeprefix(mount)}"
    raise InputError(
        f"{model} is on no volume that a serving pod can mount: it must lie under "
        f"cluster.storage.mount ({storage.mount}) or be a URL"
    )
