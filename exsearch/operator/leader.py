"""One operator acts: whoever holds the Lease (coordination.k8s.io/v1)."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from exsearch.errors import ExSearchError, InputError
from exsearch.kube.answers import Exists, Refused
from exsearch.kube.client import Api, Object
from exsearch.operator.kinds import LEASES, MANAGER

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Terms:
    """How long a lease holds, in seconds."""

    duration: float = 15.0
    """Unrenewed for so long, it is anyone's."""
    renew: float = 5.0
    """Between two renewals, and between two looks of those who wait."""


class Lost(ExSearchError):
    """The lease is another's, or could not be renewed in time: stop acting."""


class Leader:
    """A candidate for the lease.

    Clocks of machines differ: whether a lease is old is told by how long *this* process has
    seen it unchanged, never by the times written in it.

    Args:
        identity: of this process, unique among the candidates.
    """

    def __init__(self, api: Api, namespace: str, identity: str, terms: Terms | None = None) -> None:
        self._api = api
        self._namespace = namespace
        self._identity = identity
        self._terms = terms or Terms()
        self._seen: tuple[Any, float] = (None, 0.0)

    async def acquire(self) -> None:
        """Wait until the lease is held, also for an API that is away.

        Raises:
            InputError: the account may not, or the namespace is not there.
        """
        while True:
            try:
                if await self._try():
                    break
            except Refused as error:
                raise InputError(
                    f"the Lease {MANAGER} cannot be had in namespace {self._namespace}: {error}. "
                    "Name another with --lease-namespace, or run one operator with --no-leader"
                ) from error
            except InputError:
                raise
            except ExSearchError as error:
                log.warning("the lease cannot be looked at: %s", error)
            await asyncio.sleep(self._terms.renew)
        log.info("%s leads", self._identity)

    async def keep(self) -> None:
        """Renew the lease until it is lost.

        Raises:
            Lost: it is another's, or the API was away for too long.
        """
        renewed = time.monotonic()
        while True:
            await asyncio.sleep(self._terms.renew)
            left = self._terms.duration - (time.monotonic() - renewed)
            try:
                async with asyncio.timeout(max(left, 0.0)):
                    held = await self._try()
            except TimeoutError:
                raise Lost("the lease could not be renewed in time") from None
            except ExSearchError as error:
                # The API's own patience is shorter than the lease: there may be time to try again.
                log.warning("the lease was not renewed: %s", error)
                if time.monotonic() - renewed >= self._terms.duration:
                    raise Lost(f"the lease could not be renewed in time: {error}") from error
                continue
            if not held:
                raise Lost("another operator has the lease")
            renewed = time.monotonic()

    async def release(self) -> None:
        """Let go of the lease, so that the next one need not wait; nothing where it is not ours."""
        try:
            found = await self._api.get(LEASES, self._namespace, MANAGER)
            if found is not None and _holder(found) == self._identity:
                await self._write(found, {"holderIdentity": "", "leaseDurationSeconds": 1})
        except ExSearchError as error:
            log.warning("the lease was not released: %s", error)

    async def _try(self) -> bool:
        """Take or renew the lease; whether it is held."""
        found = await self._api.get(LEASES, self._namespace, MANAGER)
        try:
            if found is None:
                await self._api.create(LEASES, self._new())
                return True
            if _holder(found) not in ("", self._identity) and not self._expired(found):
                return False
            mine = _holder(found) == self._identity
            await self._write(found, self._held(found, mine))
            return True
        except Exists:
            return False
        except Refused as error:
            if error.status == 409:  # another candidate was faster
                return False
            raise

    def _expired(self, found: Object) -> bool:
        """Whether it was seen unchanged for longer than it holds."""
        version, now = found["metadata"]["resourceVersion"], time.monotonic()
        if self._seen[0] != version:
            self._seen = version, now
        duration = found["spec"].get("leaseDurationSeconds") or self._terms.duration
        return now - self._seen[1] > duration

    def _held(self, found: Object, mine: bool) -> dict[str, Any]:
        spec = {
            "holderIdentity": self._identity,
            # Whole seconds, at least one, as the API has it.
            "leaseDurationSeconds": max(1, round(self._terms.duration)),
            "renewTime": _now(),
        }
        if mine:
            return spec
        changes = found["spec"].get("leaseTransitions", 0)
        return {**spec, "acquireTime": _now(), "leaseTransitions": changes + 1}

    def _new(self) -> Object:
        return {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": MANAGER, "namespace": self._namespace},
            "spec": {**self._held({"spec": {}}, mine=True), "acquireTime": _now()},
        }

    async def _write(self, found: Object, spec: dict[str, Any]) -> None:
        """Change the lease as it was seen; refused (409) where it was changed since."""
        version = found["metadata"]["resourceVersion"]
        change = {"metadata": {"resourceVersion": version}, "spec": spec}
        await self._api.patch(LEASES, self._namespace, MANAGER, change)


def _holder(lease: Object) -> str:
    return lease["spec"].get("holderIdentity") or ""


def _now() -> str:
    """As MicroTime is written."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
