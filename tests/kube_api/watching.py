"""Watches: what happened after a version, then what happens, as one JSON line each."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

from kube_api.request import Request
from kube_api.resources import Resource
from kube_api.selectors import Match
from kube_api.status import ApiError
from kube_api.store import Change, Object, Store

BOOKMARK_EVERY = 2.0
"""Seconds between bookmarks (the real server: about a minute)."""

Event = dict[str, Any]


def events(
    store: Store, request: Request, match: Match, stopped: threading.Event
) -> Iterator[Event | None]:
    """The events of a watch; None where nothing happened for a while.

    Args:
        match: the request's selectors.
        stopped: set when the server stops.
    """
    query, resource = request.query, request.resource
    until = time.monotonic() + float(query.get("timeoutSeconds") or 1800)
    bookmarks = request.flag("allowWatchBookmarks")
    asked = query.get("resourceVersion") or "0"
    with store.lock:
        version = int(asked)
        initial = [] if version else store.all(resource.key, request.namespace)
        version = version or store.version
    yield from (_event("ADDED", item, resource) for item in initial if match(item))
    if request.flag("sendInitialEvents") and bookmarks:
        yield _bookmark(resource, version, {"k8s.io/initial-events-end": "true"})
    marked = time.monotonic()
    while not stopped.is_set() and time.monotonic() < until:
        try:
            with store.lock:
                changes, reached = store.since(version, resource.key, request.namespace)
                if reached == version:
                    store.lock.wait(0.1)
        except ApiError as error:
            yield {"type": "ERROR", "object": error.status()}
            return
        version = reached
        yield from filter(None, (_seen(change, match, resource) for change in changes))
        if bookmarks and time.monotonic() - marked > BOOKMARK_EVERY:
            marked = time.monotonic()
            yield _bookmark(resource, version, {})
        elif not changes:
            yield None
    if bookmarks and not stopped.is_set():
        yield _bookmark(resource, version, {})


def _seen(change: Change, match: Match, resource: Resource) -> Event | None:
    """A change as one sees it who watches only what matches."""
    now = change.kind != "DELETED" and match(change.item)
    before = change.before is not None and match(change.before)
    if now:
        return _event("MODIFIED" if before else "ADDED", change.item, resource)
    if not before or change.before is None:
        return None
    # Told as it was when it still matched, under the version of the change.
    version = change.item["metadata"]["resourceVersion"]
    last = {**change.before, "metadata": {**change.before["metadata"], "resourceVersion": version}}
    return _event("DELETED", last, resource)


def _event(kind: str, item: Object, resource: Resource) -> Event:
    return {"type": kind, "object": {**item, "apiVersion": resource.api_version}}


def _bookmark(resource: Resource, version: int, annotations: dict[str, str]) -> Event:
    meta: dict[str, Any] = {"resourceVersion": str(version)}
    if annotations:
        meta["annotations"] = annotations
    item = {"kind": resource.kind, "apiVersion": resource.api_version, "metadata": meta}
    return {"type": "BOOKMARK", "object": item}
