"""What an agent's status says, from what was seen. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from exsearch.kube.serving import Service
from exsearch.operator.agent import Agent
from exsearch.operator.canary import Judgement
from exsearch.operator.cron import next_time
from exsearch.operator.kfp import Recurring, Run
from exsearch.operator.models import write_standing
from exsearch.operator.promotion import Standing, Told

Status = dict[str, Any]
TRUE, FALSE, UNKNOWN = "True", "False", "Unknown"


@dataclass(frozen=True)
class Trouble:
    """Something that keeps the agent from being as its spec says."""

    reason: str
    """One word in CamelCase."""
    message: str


@dataclass(frozen=True)
class Seen:
    """What a reconcile saw and did."""

    agent: Agent
    standing: Standing
    service: Service | None = None
    """The InferenceService; None: there is none yet."""
    recurring: Recurring | None = None
    run: Run | None = None
    """The newest run; None: there was none, or it was not asked for."""
    unscheduled: Trouble | None = None
    """Why the schedule could not be looked at or made."""
    judgement: Judgement | None = None
    blind: Trouble | None = None
    """Why the candidate has no figures."""
    trouble: Trouble | None = None
    """Why not all was done."""


@dataclass(frozen=True)
class _Is:
    """A condition, without its times."""

    type: str
    status: str
    reason: str
    message: str


def next_status(seen: Seen, before: Mapping[str, Any], now: float) -> tuple[Status, list[Told]]:
    """The status, and the events of what changed in it.

    Args:
        before: the status as it was.
        now: seconds since the epoch.

    Returns:
        the same as `before` where nothing changed, times included.
    """
    conditions = [
        _index_ready(seen, before), _scheduled(seen), _trained(seen, before), _serving(seen),
        _canary(seen), _degraded(seen),
    ]  # fmt: skip
    status = {
        **{key: before[key] for key in ("lastRun", "recurringRun", "url") if key in before},
        "phase": _phase(seen, conditions),
        "observedGeneration": seen.agent.meta.get("generation", 0),
        "conditions": _dated(conditions, before, seen.agent.meta.get("generation", 0), now),
        **write_standing(seen.standing),
    }
    if seen.recurring is not None:
        status["recurringRun"] = seen.recurring.status()
    if seen.run is not None:
        status["lastRun"] = _last_run(seen.run)
    if seen.service is not None:
        status["url"] = seen.service.url
    upcoming = _next_run(seen, now)
    if upcoming:
        status["nextRun"] = upcoming
    return status, _changes(seen, status, before)


def bad_spec(meta: Mapping[str, Any], before: Mapping[str, Any], why: str, now: float) -> Status:
    """The status of an agent whose spec cannot be read: as it was, and degraded."""
    degraded = _Is("Degraded", TRUE, "InvalidSpec", why)
    generation = meta.get("generation", 0)
    kept = [c for c in before.get("conditions", []) if c["type"] != "Degraded"]
    return {
        **before,
        "phase": "Degraded",
        "observedGeneration": generation,
        "conditions": [*kept, *_dated([degraded], before, generation, now)],
    }


def failed(meta: Mapping[str, Any], before: Mapping[str, Any], trouble: Trouble,
           now: float) -> Status:  # fmt: skip
    """The status of an agent with which something went wrong: as it was, and degraded."""
    degraded = _Is("Degraded", TRUE, trouble.reason, trouble.message)
    kept = [c for c in before.get("conditions", []) if c["type"] != "Degraded"]
    dated = _dated([degraded], before, meta.get("generation", 0), now)
    return {**before, "phase": "Degraded", "conditions": [*kept, *dated]}


def change(status: Status, before: Mapping[str, Any]) -> Status:
    """The merge patch from one status to the next; empty: they are the same."""
    gone = {key: None for key in before if key not in status}
    found: Status = {**gone}
    for key, value in status.items():
        if key not in before:
            found[key] = value
        elif value != before[key]:
            nested = isinstance(value, dict) and isinstance(before[key], dict)
            found[key] = change(value, before[key]) if nested else value
    return found


# --- conditions


def _index_ready(seen: Seen, before: Mapping[str, Any]) -> _Is:
    run = seen.run
    if seen.agent.run.retrieval.url:
        where = f"the retriever at {seen.agent.run.retrieval.url} is asked"
        return _Is("IndexReady", TRUE, "Elsewhere", where)
    if run is not None and run.indexed:
        return _Is("IndexReady", TRUE, "Indexed", seen.agent.run.retrieval.index)
    if _was(before, "IndexReady"):
        return _again("IndexReady", before)
    return _of_run("IndexReady", run, "Indexing")


def _trained(seen: Seen, before: Mapping[str, Any]) -> _Is:
    run = seen.run
    if run is not None and run.state == "SUCCEEDED":
        return _Is("Trained", TRUE, "RunSucceeded", f"{run.name} ended well")
    if run is not None and run.state == "FAILED":
        # What was trained before is still there, yet the last run is what one has to look at.
        status = TRUE if _was(before, "Trained") else FALSE
        return _Is("Trained", status, "RunFailed", f"{run.name} failed: see {run.url}")
    if _was(before, "Trained"):
        return _again("Trained", before)
    return _of_run("Trained", run, "Training")


def _of_run(type_: str, run: Run | None, doing: str) -> _Is:
    if run is None:
        return _Is(type_, FALSE, "NoRun", "no run of the schedule has started yet")
    if run.active:
        return _Is(type_, FALSE, doing, f"{run.name} is {run.state.lower()}")
    return _Is(type_, FALSE, "RunFailed", f"{run.name} is {run.state.lower()}: see {run.url}")


def _scheduled(seen: Seen) -> _Is:
    away, agent = seen.unscheduled, seen.agent
    if away is not None:
        status = UNKNOWN if away.reason == "KubeflowAway" else FALSE
        return _Is("Scheduled", status, away.reason, away.message)
    if agent.keeping.suspend:
        return _Is("Scheduled", FALSE, "Suspended", "spec.suspend is true: no run is started")
    schedule = agent.run.pipeline.schedule
    if not schedule.enabled:
        return _Is("Scheduled", FALSE, "Disabled", "spec.pipeline.schedule.enabled is false")
    return _Is("Scheduled", TRUE, "Scheduled", f"{agent.run.pipeline.name}: {schedule.cron}")


def _serving(seen: Seen) -> _Is:
    service = seen.service
    if service is None:
        return _Is("Serving", FALSE, "NoService", "there is no InferenceService yet")
    if not service.ready:
        return _Is("Serving", FALSE, "NotReady", service.why)
    reason = "Pinned" if seen.agent.keeping.pinned else "Ready"
    return _Is("Serving", TRUE, reason, f"{service.model} is served")


def _canary(seen: Seen) -> _Is:
    candidate, keeping = seen.standing.candidate, seen.agent.keeping
    if candidate is None:
        return _Is("Canary", FALSE, "NoCandidate", "no model is on trial")
    if keeping.pinned:
        waits = f"{candidate.model} waits: {keeping.pinned} is pinned"
        return _Is("Canary", FALSE, "Pinned", waits)
    if seen.blind is not None:
        return _Is("Canary", UNKNOWN, seen.blind.reason, seen.blind.message)
    percent = keeping.canary.percent if keeping.canary and seen.agent.splits else 100
    words = seen.judgement.why if seen.judgement else "its trial has begun"
    on = f"{candidate.model} has {percent} % of the requests; {words}"
    return _Is("Canary", TRUE, "OnTrial", on)


def _degraded(seen: Seen) -> _Is:
    trouble = seen.trouble
    if trouble is None and seen.unscheduled and seen.unscheduled.reason != "KubeflowAway":
        trouble = seen.unscheduled
    if trouble is None:
        return _Is("Degraded", FALSE, "AsWanted", "everything is as the spec says")
    return _Is("Degraded", TRUE, trouble.reason, trouble.message)


def _phase(seen: Seen, conditions: list[_Is]) -> str:
    by_type = {c.type: c for c in conditions}
    if by_type["Degraded"].status == TRUE:
        return "Degraded"
    if seen.agent.keeping.suspend:
        return "Suspended"
    if by_type["Serving"].status == TRUE:
        return "Serving"
    if seen.run is not None and seen.run.active:
        return "Training" if by_type["IndexReady"].status == TRUE else "Indexing"
    return "Pending"


def _dated(
    conditions: list[_Is], before: Mapping[str, Any], generation: int, now: float
) -> list[dict[str, Any]]:
    """The conditions with their times: when each took the status that it has."""
    old = {c["type"]: c for c in before.get("conditions", [])}
    found = []
    for condition in conditions:
        was = old.get(condition.type)
        same = was is not None and was["status"] == condition.status
        found.append(
            {
                "type": condition.type,
                "status": condition.status,
                "reason": condition.reason,
                "message": condition.message[:2000],
                "lastTransitionTime": was["lastTransitionTime"] if same and was else _whole(now),
                "observedGeneration": generation,
            }
        )
    return found


def _whole(now: float) -> str:
    return datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def condition(status: Mapping[str, Any], type_: str) -> dict[str, Any] | None:
    """A condition of a status; None where it is not there."""
    return next((c for c in status.get("conditions", []) if c["type"] == type_), None)


def _was(before: Mapping[str, Any], type_: str) -> bool:
    found = condition(before, type_)
    return found is not None and found["status"] == TRUE


def _again(type_: str, before: Mapping[str, Any]) -> _Is:
    found = condition(before, type_) or {}
    return _Is(type_, found["status"], found["reason"], found["message"])


# --- the rest


def _last_run(run: Run) -> dict[str, Any]:
    every = {
        "id": run.id, "name": run.name, "state": run.state, "started": run.started,
        "finished": run.finished, "url": run.url,
    }  # fmt: skip
    return {key: value for key, value in every.items() if value}


def _next_run(seen: Seen, now: float) -> str:
    schedule = seen.agent.run.pipeline.schedule
    if seen.agent.keeping.suspend or not schedule.enabled or seen.recurring is None:
        return ""
    found = next_time(schedule.cron, datetime.fromtimestamp(now, UTC))
    return found.strftime("%Y-%m-%dT%H:%M:%SZ") if found else ""


def _changes(seen: Seen, status: Status, before: Mapping[str, Any]) -> list[Told]:
    """Events of what is another way than before."""
    told: list[Told] = []
    generation = status["observedGeneration"]

    def became(type_: str, reason: str) -> bool:
        now, was = condition(status, type_), condition(before, type_)
        return bool(now and now["reason"] == reason and (not was or was["reason"] != reason))

    def left(type_: str, reason: str) -> bool:
        now, was = condition(status, type_), condition(before, type_)
        return bool(was and was["reason"] == reason and now and now["reason"] != reason)

    key = str(generation)
    if became("Scheduled", "Suspended"):
        words = "spec.suspend is true: no further run is started; what serves goes on serving"
        told.append(Told("Suspended", words, transition="suspended", key=key))
    if left("Scheduled", "Suspended"):
        told.append(Told("Resumed", "runs are started again", transition="resumed", key=key))
    if became("Serving", "Pinned"):
        words = f"{seen.agent.keeping.pinned} is served, whatever is promoted"
        told.append(Told("Pinned", words, transition="pinned", key=key))
    if became("Serving", "Ready"):
        told.append(Told("Serving", condition_message(status, "Serving"), key=key))
    if became("Trained", "RunFailed") and seen.run:
        told.append(Told("RunFailed", condition_message(status, "Trained"), True, key=seen.run.id))
    degraded = condition(status, "Degraded")
    if degraded and degraded["status"] == TRUE and became("Degraded", degraded["reason"]):
        told.append(Told(degraded["reason"], degraded["message"], True, key=key))
    return told


def condition_message(status: Mapping[str, Any], type_: str) -> str:
    """The words of a condition; empty where it is not there."""
    found = condition(status, type_)
    return found["message"] if found else ""
