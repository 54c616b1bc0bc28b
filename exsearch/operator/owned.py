"""An agent's objects in the cluster: read, compared, applied where they differ."""

from __future__ import annotations

import asyncio

from exsearch.errors import InputError
from exsearch.kube.answers import Kind
from exsearch.operator.agent import Agent, Served
from exsearch.operator.api import OperatorApi
from exsearch.operator.desired import claim, claim_owners, desired, holds
from exsearch.operator.kinds import APPLIED, CLAIMS, OWNED, Object
from exsearch.operator.promotion import Told

Live = dict[str, Object | None]
"""By kind: an object as the API has it; None: there is none."""
Settled = dict[str, tuple[str, str]]
"""By kind: the digest last applied, and the version of what the API made of it."""

SHARE = "canaryTrafficPercent"


async def read(api: OperatorApi, agent: Agent) -> Live:
    """An agent's objects as they are."""
    space, name = agent.namespace, agent.name
    names = {"ConfigMap": f"{name}-run", "ServingRuntime": name, "InferenceService": name}
    if agent.run.cluster.storage.claim:
        names["PersistentVolumeClaim"] = agent.run.cluster.storage.claim
    found = await asyncio.gather(
        *(api.get(OWNED[kind], space, name) for kind, name in names.items())
    )
    return dict(zip(names, found, strict=True))


class Objects:
    """Brings an agent's objects to what they should be.

    Args:
        settled: what is remembered of earlier applies; kept up to date.

    Attributes:
        actions: what was done, in words.
        told: drift that was repaired.
    """

    def __init__(self, api: OperatorApi, agent: Agent, settled: Settled) -> None:
        self._api = api
        self._agent = agent
        self._settled = settled
        self.actions: list[str] = []
        self.told: list[Told] = []

    async def bring(self, served: Served, withdrawn: tuple[str, ...], live: Live) -> Live:
        """Apply what differs.

        Args:
            withdrawn: digests of models that no run may start from.
            live: the objects as they are.

        Returns:
            the objects as they are afterwards.

        Raises:
            InputError: the API refuses, or an object belongs to something else.
        """
        await self._keep_claim(live.get("PersistentVolumeClaim"))
        found = dict(live)
        for item in desired(self._agent, served, withdrawn):
            kind = item["kind"]
            found[kind] = await self._ensure(OWNED[kind], item, live[kind])
        return found

    async def _keep_claim(self, live: Object | None) -> None:
        wanted = claim(self._agent)
        if wanted is None:
            return
        name = wanted["metadata"]["name"]
        if live is None:
            await self._api.apply(CLAIMS, wanted)
            self.actions.append(f"made PersistentVolumeClaim {name}")
            return
        owners = claim_owners(self._agent, live)
        if owners is not None:
            version = live["metadata"]["resourceVersion"]
            change = {"ownerReferences": owners}
            await self._api.patch_metadata(CLAIMS, self._agent.namespace, name, version, change)
            self.actions.append(f"changed the owners of PersistentVolumeClaim {name}")

    async def _ensure(self, kind: Kind, wanted: Object, live: Object | None) -> Object:
        """Apply an object, unless it is as wanted.

        What the API made of the last apply (its webhooks may change a field) is as wanted.
        """
        meta, what = wanted["metadata"], wanted["kind"]
        digest, name = meta["annotations"][APPLIED], f"{what} {meta['name']}"
        settled = self._settled.get(what)
        drifted = live is None and settled is not None and settled[0] == digest
        if live is not None:
            _refuse_others(live, name, self._agent.meta["uid"])
            drifted = live["metadata"].get("annotations", {}).get(APPLIED) == digest
            as_applied = holds(wanted, live) or settled == (digest, _version(live))
            if drifted and as_applied and not _stray_share(wanted, live):
                return live
        applied = await self._api.apply(kind, wanted)
        if _stray_share(wanted, applied):
            # Whoever set it owns it: an apply that leaves it out does not remove it.
            change = {"spec": {"predictor": {SHARE: None}}}
            applied = await self._api.patch(kind, meta["namespace"], meta["name"], change)
        self._settled[what] = digest, _version(applied)
        self.actions.append(f"applied {name}")
        if drifted:
            how = "changed" if live else "deleted"
            words = f"{name} was {how} by someone else, and is again as spec and status say"
            key = f"{name} {applied['metadata']['resourceVersion']}"
            self.told.append(Told("DriftRepaired", words, True, key=key))
        return applied


def _stray_share(wanted: Object, live: Object) -> bool:
    """Whether a share of the traffic is set that nobody should have set."""
    if wanted["kind"] != "InferenceService" or SHARE in wanted["spec"]["predictor"]:
        return False
    return live["spec"]["predictor"].get(SHARE) is not None


def _refuse_others(live: Object, name: str, uid: str) -> None:
    """What has no controller is adopted; what has another one is not fought over.

    Raises:
        InputError: it belongs to something else.
    """
    for owner in live["metadata"].get("ownerReferences", []):
        if owner.get("controller") and owner["uid"] != uid:
            raise InputError(
                f"{name} belongs to {owner['kind']} {owner['name']}. Delete that, or give the "
                "SearchAgent another name"
            )


def _version(item: Object) -> str:
    """What changes with every write of an object, except of its status where that is apart."""
    meta = item["metadata"]
    return str(meta.get("generation") or meta["resourceVersion"])
