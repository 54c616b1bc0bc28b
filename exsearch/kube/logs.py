"""The log of one container, line by line, across broken connections."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable

from exsearch.errors import ExSearchError
from exsearch.kube.answers import PODS, Invalid, Refused
from exsearch.kube.client import Api

_QUIET = 60.0
"""Seconds of silence after which the connection is made anew, in case it has died unnoticed."""
_PAUSE = 0.5
"""Seconds before the next connection."""
_STAMP = re.compile(rb"^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d+))?(Z|[+-]\d\d:\d\d) ?")


class Follower:
    """Reads a container's log from its start to its end, each line once.

    The kubelet stamps every line; after a lost connection the log is asked for from the
    second of the last line on, and what was read before is left out.

    Args:
        ended: whether the container has ended, so that the log's end is final.
    """

    def __init__(
        self, api: Api, namespace: str, pod: str, container: str, ended: Callable[[], bool]
    ) -> None:
        self._api, self._namespace = api, namespace
        self._pod, self._container, self._ended = pod, container, ended
        self._last, self._second, self._same = b"", "", 0

    async def lines(self) -> AsyncIterator[str]:
        """The lines, without their stamps.

        A log that cannot be had now is asked for again and again: whether the API is lost
        for good, the watches tell, and a job is none the worse for a kubelet that is away.

        Raises:
            ExSearchError: the API refused.
        """
        while True:
            final = self._ended()
            try:
                async for line in self._read():
                    yield line
            except OSError:
                final = False
            except Invalid:
                pass  # the container is being made, or never was
            except Refused as error:
                if error.status == 404:
                    return  # the pod was removed
                raise
            if final:
                return
            await asyncio.sleep(_PAUSE)

    async def _read(self) -> AsyncIterator[str]:
        """The lines of one connection that have not been read before."""
        params = {"container": self._container, "follow": "true", "timestamps": "true"}
        if self._second:
            params["sinceTime"] = self._second
        repeated = 0
        async with self._api.stream(
            "get", PODS, self._namespace, params, name=self._pod, subresource="log", quiet=_QUIET
        ) as lines:
            async for line in lines:
                found = _STAMP.match(line)
                if found is None:
                    continue  # the kubelet's own words, or a line cut short
                stamp = found[1] + b"." + (found[2] or b"").ljust(9, b"0")
                if stamp < self._last:
                    continue
                if stamp == self._last:
                    repeated += 1
                    if repeated <= self._same:
                        continue
                    self._same += 1
                else:
                    self._last, self._same, repeated = stamp, 1, 1
                    self._second = (found[1] + found[3]).decode()
                yield line[found.end() :].decode(errors="replace")


async def tail(api: Api, namespace: str, pod: str, container: str, count: int) -> list[str]:
    """The last lines a container wrote; none where they cannot be had any more."""
    params = {"container": container, "tailLines": str(count)}
    try:
        async with api.stream(
            "get", PODS, namespace, params, name=pod, subresource="log", quiet=10.0
        ) as lines:
            return [line.decode(errors="replace") async for line in lines]
    except (OSError, ExSearchError):
        return []
