"""What a person asks of a SearchAgent's operator: a change of the resource, and no more."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any, Literal

from exsearch.errors import InputError
from exsearch.kube.answers import Refused
from exsearch.kube.client import Api, Object
from exsearch.kube.serving import PATIENCE
from exsearch.operator.kinds import AGENTS, PROMOTE, ROLLBACK

Request = Literal["promote", "rollback", "pause", "resume"]


def change(request: Request, reason: str = "") -> Object:
    """The merge patch that asks for it.

    Args:
        reason: of a rollback, kept with the model that is withdrawn.
    """
    match request:
        case "promote":
            return {"metadata": {"annotations": {PROMOTE: "now"}}}
        case "rollback":
            return {"metadata": {"annotations": {ROLLBACK: reason or "no reason given"}}}
        case "pause" | "resume":
            return {"spec": {"suspend": request == "pause"}}


def ask(request: Request, name: str, namespace: str, reason: str = "") -> None:
    """Ask a SearchAgent's operator for something; it is done a moment later.

    Raises:
        InputError: there is no such SearchAgent, or the account may not.
        ExSearchError: the API does not answer.
    """

    async def send() -> None:
        async with Api.open(PATIENCE) as api:
            try:
                await api.patch(AGENTS, namespace, name, change(request, reason))
            except Refused as error:
                if error.status != 404:
                    raise
                raise _missing(name, namespace) from error

    asyncio.run(send())


def find(name: str, namespace: str) -> Object:
    """A SearchAgent as the API has it.

    Raises:
        InputError: there is none of that name, or the account may not.
        ExSearchError: the API does not answer.
    """

    async def read() -> Object | None:
        async with Api.open(PATIENCE) as api:
            return await api.get(AGENTS, namespace, name)

    found = asyncio.run(read())
    if found is None:
        raise _missing(name, namespace)
    return found


def _missing(name: str, namespace: str) -> InputError:
    return InputError(
        f"there is no SearchAgent {name} in namespace {namespace}: kubectl get searchagents "
        "--all-namespaces shows those that are"
    )


def lines(agent: Object) -> Iterator[str]:
    """A SearchAgent's status, for people."""
    meta, status = agent["metadata"], agent.get("status", {})
    yield f"SearchAgent {meta['namespace']}/{meta['name']}: {status.get('phase', 'Pending')}"
    yield f"  url        {status.get('url') or 'none yet'}"
    yield f"  champion   {_promotion(status.get('champion'), 'the base model')}"
    if "candidate" in status:
        yield f"  candidate  {_promotion(status['candidate'], '')}"
    last = status.get("lastRun", {})
    yield f"  last run   {last.get('name', 'none yet')} {last.get('state', '')}".rstrip()
    yield f"  next run   {status.get('nextRun') or 'none'}"
    for condition in status.get("conditions", []):
        sign = {"True": "yes", "False": "no"}.get(condition["status"], "unknown")
        words = f"{sign} ({condition['reason']}): {condition['message']}"
        yield f"  {condition['type']:<10} {words}"
    for earlier in status.get("history", []):
        withdrawn = earlier.get("withdrawn")
        mark = f"withdrawn: {withdrawn}" if withdrawn else "earlier"
        yield f"  {earlier['promoted']} {earlier['model']} {earlier['digest']} ({mark})"


def _promotion(found: dict[str, Any] | None, none: str) -> str:
    if not found:
        return none
    measured = ", ".join(f"{key} {value:.3f}" for key, value in found.get("metrics", {}).items())
    return f"{found['model']} {found['digest']} {measured}".rstrip()
