"""The lease: one holds it, another takes over, and an API that is away decides nothing."""

from __future__ import annotations

import asyncio
import copy
from typing import Any, cast

import pytest

from exsearch.errors import ExSearchError, InputError
from exsearch.kube.answers import Exists, Refused
from exsearch.operator.api import OperatorApi
from exsearch.operator.leader import Leader, Lost, Terms

pytestmark = pytest.mark.unit

TERMS = Terms(duration=0.4, renew=0.05)


class OneLease:
    """An API that holds one Lease."""

    def __init__(self) -> None:
        self.item: dict[str, Any] | None = None
        self.version = 0
        self.errors: list[ExSearchError] = []

    def _answer(self) -> None:
        if self.errors:
            raise self.errors.pop(0)

    def _write(self, item: dict[str, Any]) -> None:
        self.version += 1
        self.item = item
        self.item["metadata"]["resourceVersion"] = str(self.version)

    async def get(self, *_: Any) -> dict[str, Any] | None:
        self._answer()
        return copy.deepcopy(self.item)

    async def create(self, kind: Any, item: dict[str, Any]) -> None:
        if self.item is not None:
            raise Exists("there", 409)
        self._write(copy.deepcopy(item))

    async def patch(self, kind: Any, space: str, name: str, change: dict[str, Any]) -> None:
        assert self.item is not None
        if change["metadata"]["resourceVersion"] != self.item["metadata"]["resourceVersion"]:
            raise Refused("changed", 409)
        self._write({**self.item, "spec": {**self.item["spec"], **change["spec"]}})

    @property
    def holder(self) -> str:
        assert self.item is not None
        return self.item["spec"]["holderIdentity"]


def leader(api: OneLease, name: str) -> Leader:
    return Leader(cast(OperatorApi, api), "n", name, TERMS)


async def test_the_second_waits_and_takes_over_what_is_not_renewed() -> None:
    api = OneLease()
    await leader(api, "one").acquire()
    second = asyncio.create_task(leader(api, "two").acquire())
    await asyncio.sleep(TERMS.duration / 2)
    assert (api.holder, second.done()) == ("one", False)
    # Whole seconds, as the API has it: one, at least.
    await asyncio.wait_for(second, 3)
    assert api.holder == "two"
    assert api.item is not None
    assert api.item["spec"]["leaseTransitions"] == 1


async def test_a_lease_that_is_renewed_stays_and_one_that_is_released_goes_at_once() -> None:
    api = OneLease()
    first = leader(api, "one")
    await first.acquire()
    keep = asyncio.create_task(first.keep())
    second = asyncio.create_task(leader(api, "two").acquire())
    await asyncio.sleep(1.5)
    assert (api.holder, second.done(), keep.done()) == ("one", False, False)
    keep.cancel()
    await first.release()
    await asyncio.wait_for(second, 3 * TERMS.renew)
    await first.release()
    assert api.holder == "two", "what is another's is not released"


async def test_of_two_at_the_same_moment_one_leads() -> None:
    api = OneLease()
    both = [asyncio.create_task(leader(api, name).acquire()) for name in ("one", "two")]
    await asyncio.sleep(TERMS.duration / 2)
    assert [task.done() for task in both].count(True) == 1
    for task in both:
        task.cancel()


@pytest.mark.parametrize("away", [3, 1000], ids=["for a moment", "for long"])
async def test_an_api_that_is_away_is_waited_for_until_the_lease_runs_out(away: int) -> None:
    api = OneLease()
    api.errors = [ExSearchError("away")] * 2
    first = leader(api, "one")
    await asyncio.wait_for(first.acquire(), 1)
    api.errors = [ExSearchError("away")] * away
    keep = asyncio.create_task(first.keep())
    await asyncio.sleep(2 * TERMS.duration)
    assert keep.done() == (away == 1000)
    if keep.done():
        with pytest.raises(Lost):
            await keep
    keep.cancel()


async def test_a_lease_that_was_taken_is_lost() -> None:
    api = OneLease()
    first = leader(api, "one")
    await first.acquire()
    assert api.item is not None
    api._write({**api.item, "spec": {**api.item["spec"], "holderIdentity": "two"}})
    with pytest.raises(Lost, match="another operator"):
        await asyncio.wait_for(first.keep(), 1)


async def test_a_namespace_that_is_not_there_is_told_with_the_way_out() -> None:
    api = OneLease()
    api.errors = [Refused('namespaces "n" not found', 404)]
    with pytest.raises(InputError, match="--lease-namespace"):
        await leader(api, "one").acquire()
