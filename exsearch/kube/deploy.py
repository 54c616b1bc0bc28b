"""Point the InferenceService at a newly promoted model."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from exsearch.config import ClusterConfig, StorageConfig
from exsearch.em.champion import Promotion
from exsearch.errors import InputError
from exsearch.kube.answers import Kind, Refused
from exsearch.kube.client import Api
from exsearch.storage import is_remote

SERVICES = Kind("serving.kserve.io", "v1beta1", "inferenceservices", "KServe")
RUN, DIGEST = "exsearch.dev/run", "exsearch.dev/model-digest"
"""Annotations of an InferenceService: what it serves came from where."""


def serve(new: Promotion, cluster: ClusterConfig, tell: Callable[[str], None]) -> None:
    """Patch the InferenceService's `storageUri`; does nothing where none is configured.

    Raises:
        InputError: the model lies where no pod can mount it, or the patch is refused.
        ExSearchError: the API server does not answer.
    """
    target = cluster.deploy
    if not target.name:
        return
    space = target.namespace or cluster.namespace
    if not asyncio.run(_patch(space, target.name, service_patch(new, cluster))):
        tell(
            f"there is no InferenceService {target.name} in namespace {space} yet; the "
            "champion's record names the model it is to serve"
        )
    else:
        tell(f"InferenceService {space}/{target.name} serves {new.model} from here on")


async def _patch(space: str, name: str, change: dict[str, Any]) -> bool:
    """Whether there was a service to patch."""
    async with Api.open() as api:
        try:
            await api.patch(SERVICES, space, name, change)
        except Refused as error:
            if error.status != 404:
                raise
            return False
        return True


def service_patch(new: Promotion, cluster: ClusterConfig) -> dict[str, Any]:
    """The merge patch that makes an InferenceService serve this model.

    With a canary share, KServe sends so much traffic to the new revision and the rest to the
    one before; without, the new one takes all.
    """
    predictor: dict[str, Any] = {
        "model": {"storageUri": storage_uri(new.model, cluster.storage)},
        "canaryTrafficPercent": cluster.deploy.canary_percent or None,
    }
    annotations = {RUN: new.run, DIGEST: new.digest}
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
