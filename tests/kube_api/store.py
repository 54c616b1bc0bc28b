"""What etcd is to the API server: objects, one growing version, and what happened since."""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from kube_api.resources import Resource
from kube_api.status import conflict, expired, not_found

Object = dict[str, Any]
Key = tuple[str, str]


@dataclass(frozen=True)
class Change:
    """One write.

    Args:
        kind: `ADDED`, `MODIFIED` or `DELETED`.
        item: the object after it (for a deletion: its last state, with the version of the
            deletion).
        before: the object before it, None for a creation.
    """

    version: int
    key: Key
    kind: str
    item: Object
    before: Object | None


class Store:
    """Objects by kind, namespace and name. Objects handed out must not be changed.

    All writers hold `lock`; those who wait for changes wait on it.
    """

    def __init__(self) -> None:
        self.lock = threading.Condition(threading.RLock())
        self.version = 1
        self._objects: dict[Key, dict[tuple[str, str], Object]] = {}
        self._changes: list[Change] = []
        self._floor = 0

    def get(self, resource: Resource, namespace: str, name: str) -> Object:
        """One object.

        Raises:
            ApiError: 404.
        """
        found = self.find(resource.key, namespace, name)
        if found is None:
            raise not_found(resource.plural, resource.group, name)
        return found

    def find(self, key: Key, namespace: str, name: str) -> Object | None:
        """One object, or None."""
        return self._objects.get(key, {}).get((namespace, name))

    def all(self, key: Key, namespace: str = "") -> list[Object]:
        """The objects of a kind, in one namespace or all, by namespace and name."""
        kept = self._objects.get(key, {})
        return [kept[place] for place in sorted(kept) if not namespace or place[0] == namespace]

    def everything(self) -> Iterator[tuple[Key, Object]]:
        """Every object with its kind's key."""
        for key, kept in list(self._objects.items()):
            for item in list(kept.values()):
                yield key, item

    def put(self, resource: Resource, item: Object, seen: str | None = None) -> Object:
        """Write an object under the next version.

        Args:
            seen: the version that the writer read; None writes whatever is there.

        Raises:
            ApiError: 409, the object has another version now.
        """
        meta = item["metadata"]
        place = meta.get("namespace", ""), meta["name"]
        with self.lock:
            before = self._objects.setdefault(resource.key, {}).get(place)
            if before and seen and before["metadata"]["resourceVersion"] != seen:
                raise conflict(resource.plural, resource.group, meta["name"])
            new = self._versioned(item)
            self._objects[resource.key][place] = new
            self._record("MODIFIED" if before else "ADDED", resource.key, new, before)
            return new

    def remove(self, key: Key, item: Object) -> Object:
        """Forget an object; its last state is returned under the version of its removal."""
        meta = item["metadata"]
        with self.lock:
            before = self._objects[key].pop((meta.get("namespace", ""), meta["name"]))
            last = self._versioned(before)
            self._record("DELETED", key, last, before)
            return last

    def since(self, version: int, key: Key, namespace: str) -> tuple[list[Change], int]:
        """Changes of a kind after a version, and the version they reach up to.

        Raises:
            ApiError: 410, what happened then is forgotten.
        """
        with self.lock:
            if version < self._floor:
                raise expired(version, self._floor)
            first = bisect_right(self._changes, version, key=lambda change: change.version)
            found = [
                change
                for change in self._changes[first:]
                if change.key == key
                and (not namespace or change.item["metadata"].get("namespace") == namespace)
            ]
            return found, self.version

    def expire(self) -> None:
        """Forget every change up to now, and let versions before now be too old."""
        with self.lock:
            self.version += 1
            self._floor = self.version
            self._changes.clear()

    def _versioned(self, item: Object) -> Object:
        self.version += 1
        meta = {**item["metadata"], "resourceVersion": str(self.version)}
        return {**item, "metadata": meta}

    def _record(self, kind: str, key: Key, item: Object, before: Object | None) -> None:
        self._changes.append(Change(self.version, key, kind, item, before))
        self.lock.notify_all()
