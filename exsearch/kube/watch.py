"""What there is, and what becomes of it: list, then watch, for as long as it takes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping

from exsearch.kube.answers import Expired, Kind, Refused
from exsearch.kube.client import Api, Object

_ROUND = 60
"""Seconds after which the server ends a watch; the next goes on from its last version."""
_PAUSE = 1.0
"""Seconds between two watches, lest one that ends at once is asked for without end."""

Snapshot = dict[str, Object]
"""The objects selected, by name."""


async def snapshots(
    api: Api, kind: Kind, namespace: str, selection: Mapping[str, str]
) -> AsyncGenerator[Snapshot, None]:
    """The objects selected, as they are now and after every change.

    A watch goes on where it ended; one that was lost (the server restarted, its history
    expired) begins again with a list, so that no state is missed, though steps on the way
    to it may be. Where watches are cut all the time, by a proxy perhaps, this polls.

    Raises:
        ExSearchError: the API refused, or was away for longer than its patience.
    """
    while True:
        items, version = await api.list(kind, namespace, selection)
        held = {item["metadata"]["name"]: item for item in items}
        yield dict(held)
        try:
            while True:
                changes = _changes(api, kind, namespace, selection, version)
                async for item, there, reached in changes:
                    version = reached
                    if item is None:
                        continue
                    if there:
                        held[item["metadata"]["name"]] = item
                    else:
                        held.pop(item["metadata"]["name"], None)
                    yield dict(held)
                await asyncio.sleep(_PAUSE)
        except (Expired, OSError):
            await asyncio.sleep(_PAUSE)


async def _changes(
    api: Api, kind: Kind, namespace: str, selection: Mapping[str, str], version: str
) -> AsyncIterator[tuple[Object | None, bool, str]]:
    """One watch: each object that changed, whether it is there, and the version reached.

    A bookmark is a version without an object.

    Raises:
        Expired: the version is no longer remembered.
        OSError: the watch was lost.
    """
    params = {
        **selection,
        "watch": "true",
        "resourceVersion": version,
        "allowWatchBookmarks": "true",
        "timeoutSeconds": str(_ROUND),
    }
    async with api.stream("watch", kind, namespace, params, quiet=_ROUND + 15.0) as lines:
        async for line in lines:
            try:
                event = json.loads(line)
            except ValueError as error:  # the server stopped in the middle of a line
                raise ConnectionError(f"half an event: {line[:80]!r}") from error
            item = event["object"]
            if event["type"] == "ERROR":
                _raise(item)
            reached = item["metadata"]["resourceVersion"]
            if event["type"] == "BOOKMARK":
                yield None, False, reached
            else:
                yield item, event["type"] != "DELETED", reached


def _raise(status: Object) -> None:
    code, message = status.get("code", 500), status.get("message", "")
    if code == 410:
        raise Expired(message, code)
    if code >= 500:
        raise ConnectionError(message)
    raise Refused(f"the watch ended: {code} {message}", code)
