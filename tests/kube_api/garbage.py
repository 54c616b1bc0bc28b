"""Deletion: finalizers, grace periods of pods, dependents, namespaces.

What the real cluster's garbage collector and namespace controller do some moments later, this
does before the request is answered.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kube_api.resources import Catalogue, Resource
from kube_api.store import Key, Object, Store
from kube_api.writing import now

FOREGROUND = "foregroundDeletion"
ORPHAN = "orphan"


class Garbage:
    """Deletes objects, and what must go with them."""

    def __init__(self, store: Store, catalogue: Catalogue) -> None:
        self._store = store
        self._catalogue = catalogue

    def delete(
        self, resource: Resource, item: Object, options: Mapping[str, Any]
    ) -> tuple[Object, bool]:
        """Delete an object: at once, or by marking it where something keeps it.

        Returns:
            The object, and whether it is gone.
        """
        policy = options.get("propagationPolicy") or "Background"
        meta = dict(item["metadata"])
        finalizers = [f for f in meta.get("finalizers") or () if f not in (FOREGROUND, ORPHAN)]
        if policy == "Foreground":
            finalizers.append(FOREGROUND)
        elif policy == "Orphan":
            self._orphan(meta["uid"])
        grace = _grace(resource, item, options)
        contents = resource.key == ("", "namespaces") and self._contents(meta["name"])
        if not finalizers and not grace and not contents:
            return self._remove(resource.key, item), True
        if not meta.get("deletionTimestamp"):
            meta |= {"deletionTimestamp": now(), "deletionGracePeriodSeconds": grace}
        meta["finalizers"] = finalizers
        if not finalizers:
            meta.pop("finalizers")
        marked = {**item, "metadata": meta}
        if resource.key == ("", "namespaces"):
            marked["status"] = {"phase": "Terminating"}
        marked = self._store.put(resource, marked)
        self.collect()
        gone = self._store.find(resource.key, meta.get("namespace", ""), meta["name"]) is None
        return marked, gone

    def finish(self, resource: Resource, item: Object) -> None:
        """Remove an object that was marked and whose last finalizer is gone now."""
        meta = item["metadata"]
        waiting = meta.get("finalizers") or meta.get("deletionGracePeriodSeconds")
        if meta.get("deletionTimestamp") and not waiting:
            self._remove(resource.key, item)

    def collect(self) -> None:
        """Delete dependents whose owners are gone, until nothing more is to be deleted."""
        while self._collect_once():
            pass

    def _collect_once(self) -> bool:
        everything = list(self._store.everything())
        alive = {item["metadata"]["uid"]: item for _, item in everything}
        for key, item in everything:
            meta = item["metadata"]
            if meta.get("deletionTimestamp"):
                if self._released(key, item, everything):
                    return True
                continue
            if not _still_owned(meta, alive) or self._homeless(key, meta):
                resource = self._resource(key)
                leaving = [
                    alive.get(owner["uid"], {}).get("metadata", {}).get("finalizers") or ()
                    for owner in meta.get("ownerReferences") or ()
                ]
                cascade = "Foreground" if any(FOREGROUND in f for f in leaving) else "Background"
                self.delete(resource, item, {"propagationPolicy": cascade})
                return True
        return False

    def _released(self, key: Key, item: Object, everything: list[tuple[Key, Object]]) -> bool:
        """Let go of a marked object that nothing keeps any more."""
        meta = item["metadata"]
        if key == ("", "namespaces"):
            if self._contents(meta["name"]):
                return False
            self._remove(key, item)
            return True
        if FOREGROUND not in (meta.get("finalizers") or ()):
            return False
        blocked = any(
            owner["uid"] == meta["uid"] and owner.get("blockOwnerDeletion")
            for _, other in everything
            for owner in other["metadata"].get("ownerReferences") or ()
        )
        if blocked:
            return False
        left = [f for f in meta["finalizers"] if f != FOREGROUND]
        new = {**item, "metadata": {**meta, "finalizers": left}}
        if left or meta.get("deletionGracePeriodSeconds"):
            self._store.put(self._resource(key), new)
        else:
            self._remove(key, item)
        return True

    def _homeless(self, key: Key, meta: Mapping[str, Any]) -> bool:
        """Its namespace is on its way out."""
        home = self._store.find(("", "namespaces"), "", meta.get("namespace", ""))
        return bool(home and home["metadata"].get("deletionTimestamp"))

    def _contents(self, namespace: str) -> bool:
        return any(
            item["metadata"].get("namespace") == namespace for _, item in self._store.everything()
        )

    def _remove(self, key: Key, item: Object) -> Object:
        last = self._store.remove(key, item)
        if key == ("apiextensions.k8s.io", "customresourcedefinitions"):
            spec = item["spec"]
            for other in self._store.all((spec["group"], spec["names"]["plural"])):
                self._store.remove((spec["group"], spec["names"]["plural"]), other)
            self._catalogue.remove(item)
        self.collect()
        return last

    def _orphan(self, uid: str) -> None:
        for key, item in list(self._store.everything()):
            owners = item["metadata"].get("ownerReferences") or []
            kept = [owner for owner in owners if owner["uid"] != uid]
            if len(kept) != len(owners):
                meta = {**item["metadata"], "ownerReferences": kept}
                self._store.put(self._resource(key), {**item, "metadata": meta})

    def _resource(self, key: Key) -> Resource:
        return next(resource for resource in self._catalogue if resource.key == key)


def _still_owned(meta: Mapping[str, Any], alive: Mapping[str, Object]) -> bool:
    """Has no owners, or one that exists and is not taking its dependents along."""
    owners = meta.get("ownerReferences") or ()
    return not owners or any(
        owner["uid"] in alive
        and FOREGROUND not in (alive[owner["uid"]]["metadata"].get("finalizers") or ())
        for owner in owners
    )


def _grace(resource: Resource, item: Object, options: Mapping[str, Any]) -> int:
    """Seconds that a kubelet has to stop a pod; 0 where no kubelet has it, and for other kinds."""
    if resource.key != ("", "pods"):
        return 0
    ended = (item.get("status") or {}).get("phase") in ("Succeeded", "Failed")
    if not item["spec"].get("nodeName") or ended:
        return 0
    asked = options.get("gracePeriodSeconds")
    return item["spec"].get("terminationGracePeriodSeconds", 30) if asked is None else asked
