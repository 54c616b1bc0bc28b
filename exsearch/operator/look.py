"""One look at one agent: what is there is brought to what its spec says.

Whatever caused the look, it reads the agent anew and does the same things in the same order, so
that it may be stopped at any request and begun again by anyone:

    finalizer → rollback resolved → models decided, told, and written into the status → objects
    applied where they differ → schedule → status → requests that were carried out removed

What decides what is served is in the status before anything serves it. A request of a person or
of a run is removed last; until then the status tells that it was carried out.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import httpx

from exsearch.errors import ExSearchError, InputError
from exsearch.kube.serving import mode, read_service
from exsearch.operator import status as states
from exsearch.operator.agent import Agent, read_agent, settings
from exsearch.operator.api import OperatorApi
from exsearch.operator.canary import Judgement, NoFigures, await_pods, judge, measure
from exsearch.operator.events import tell
from exsearch.operator.kfp import Pipelines, Recurring, Run, schedule_digest
from exsearch.operator.kinds import AGENTS, FINALIZER, Object
from exsearch.operator.metrics import Metrics
from exsearch.operator.models import MODELS, read_standing, write_standing
from exsearch.operator.owned import Live, Objects, Settled, read
from exsearch.operator.promotion import Moment, Standing, Told, advance, resolve_rollback
from exsearch.operator.status import Seen, Trouble, next_status
from exsearch.operator.traffic import served_model, taken_up, unready_since

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Pace:
    """How often one looks, in seconds."""

    pending: float = 60.0
    """At an agent on which something is under way."""
    idle: float = 600.0
    """At one on which nothing is."""
    kubeflow: float = 30.0
    """At Kubeflow Pipelines, for one agent, at most."""


@dataclass(frozen=True)
class Outcome:
    """What one look did."""

    actions: tuple[str, ...] = ()
    """Each change, in words; none: everything was as wanted."""
    again: float | None = None
    """Seconds until the next look; None: the agent is gone."""
    trouble: Trouble | None = None
    """Why not all was done."""


@dataclass
class Memory:
    """What the operator remembers of an agent, and can do without."""

    settled: Settled = field(default_factory=dict)
    looked: float = -1e9
    """When Kubeflow was last asked (monotonic)."""


@dataclass
class Means:
    """What looks are made with."""

    api: OperatorApi
    pipelines: Pipelines
    http: httpx.AsyncClient
    """Asks Prometheus."""
    metrics: Metrics
    pace: Pace = field(default_factory=Pace)
    clock: Callable[[], float] = time.time
    """Seconds since the epoch."""


class Look:
    """One look at one agent."""

    def __init__(self, means: Means, item: Object, memory: Memory) -> None:
        self.means = means
        self.api = means.api
        self.item = item
        """As the API's last answer had it."""
        self.memory = memory
        self.now = means.clock()
        self.actions: list[str] = []

    @property
    def meta(self) -> Object:
        return self.item["metadata"]

    @property
    def status(self) -> dict[str, Any]:
        return self.item.get("status") or {}

    async def run(self) -> Outcome:
        if self.meta.get("deletionTimestamp"):
            return await self._finish()
        try:
            agent = read_agent(self.item)
        except InputError as error:
            trouble = Trouble("InvalidSpec", str(error))
            await self._write(states.bad_spec(self.meta, self.status, str(error), self.now))
            return self._outcome(self.means.pace.idle, trouble)
        try:
            return await self._bring(agent)
        except InputError as error:
            return await self._fail(Trouble("Refused", str(error)))

    async def _bring(self, agent: Agent) -> Outcome:
        await self._keep_finalizer()
        await self._resolve_rollback()
        live = await read(self.api, agent)
        service = live["InferenceService"]
        if service is not None:
            agent = agent.with_mode(mode(service))
        judgement, blind = await self._judge(agent, service)
        standing, answered = await self._decide(agent, judgement)
        live = await self._apply(agent, standing, live)
        recurring, run, unscheduled = await self._schedule(agent, standing)
        seen = Seen(
            agent=agent,
            standing=standing,
            service=read_service(live["InferenceService"]) if live["InferenceService"] else None,
            recurring=recurring,
            run=run,
            unscheduled=unscheduled,
            judgement=judgement if standing.candidate else None,
            blind=blind if standing.candidate else None,
        )
        status, told = next_status(seen, self.status, self.now)
        await self._write(status, told)
        again = await self._answer(answered)
        return self._outcome(self._pause(seen) if not again else 0.1, None)

    def _outcome(self, again: float | None, trouble: Trouble | None) -> Outcome:
        return Outcome(tuple(self.actions), again, trouble)

    def _pause(self, seen: Seen) -> float:
        """Seconds until the next look."""
        waits = (
            seen.standing.candidate is not None
            or seen.unscheduled is not None
            or seen.service is None
            or not seen.service.ready
            or (seen.run is not None and seen.run.active)
        )
        return self.means.pace.pending if waits else self.means.pace.idle

    # --- what is asked for

    async def _keep_finalizer(self) -> None:
        """Before anything is made outside of Kubernetes that only the operator removes."""
        finalizers = self.meta.get("finalizers", [])
        if FINALIZER not in finalizers:
            await self._patch({"finalizers": [*finalizers, FINALIZER]}, "finalizer")

    async def _resolve_rollback(self) -> None:
        standing = read_standing(self.status)
        change = resolve_rollback(standing, self.meta.get("annotations", {}))
        if change:
            await self._patch({"annotations": change}, "rollback resolved")

    async def _judge(
        self, agent: Agent, service: Object | None
    ) -> tuple[Judgement | None, Trouble | None]:
        """The verdict on the candidate, or why there is none."""
        candidate, budget = read_standing(self.status).candidate, agent.keeping.canary
        if candidate is None or not candidate.since or agent.keeping.pinned or budget is None:
            return None, None
        if not taken_up(agent, service, candidate.model):
            # A change of the spec replaces the pods, too: their time begins anew with it.
            since = max(candidate.since, unready_since(service) or 0.0)
            return await_pods(budget, self.now - since), None
        elapsed = self.now - candidate.since
        try:
            figures = await measure(
                self.means.http, budget.prometheus, agent.namespace, candidate.digest, elapsed
            )
        except NoFigures as error:
            # Without figures nothing is promoted, and nothing withdrawn.
            return None, Trouble("NoFigures", str(error))
        return judge(budget, figures, elapsed), None

    async def _decide(
        self, agent: Agent, judgement: Judgement | None
    ) -> tuple[Standing, dict[str, str]]:
        """What the models are from here on: told, then written, before anything serves them."""
        keeping = agent.keeping
        moment = Moment(
            now=self.now,
            trial=keeping.canary is not None,
            pinned=bool(keeping.pinned),
            kept=keeping.history,
            judgement=judgement,
        )
        before = read_standing(self.status)
        step = advance(before, self.meta.get("annotations", {}), moment)
        if step.standing != before:
            kept = {k: v for k, v in self.status.items() if k not in MODELS}
            await self._write({**kept, **write_standing(step.standing)}, step.told)
        else:
            await self._tell(step.told)
        return step.standing, dict(step.answered)

    async def _answer(self, answered: dict[str, str]) -> bool:
        """Remove the requests that were carried out; whether newer ones wait."""
        there = self.meta.get("annotations", {})
        done = {key: None for key, value in answered.items() if there.get(key) == value}
        if done:
            await self._patch({"annotations": done}, f"answered {', '.join(sorted(done))}")
        return len(done) < len(answered)

    async def _apply(self, agent: Agent, standing: Standing, live: Live) -> Live:
        """Bring the objects to what they should be; as they are afterwards."""
        served = served_model(agent, standing, live["InferenceService"])
        objects = Objects(self.api, agent, self.memory.settled)
        try:
            found = await objects.bring(served, standing.withdrawn, live)
        finally:
            self.actions += objects.actions
        await self._tell(objects.told)
        return found

    # --- the schedule

    async def _schedule(
        self, agent: Agent, standing: Standing
    ) -> tuple[Recurring | None, Run | None, Trouble | None]:
        """The recurring run and its newest run, or why they cannot be looked at.

        Kubeflow is asked when another schedule is wanted, and every so often: to see how the
        runs fare, and that the schedule is still there.
        """
        config = settings(agent, standing.withdrawn)
        known, run = _known(self.status)
        soon = time.monotonic() - self.memory.looked < self.means.pace.kubeflow
        if known is not None and known.digest != schedule_digest(config):
            known = None
        if known is not None and soon:
            return known, run, None
        pipelines = self.means.pipelines
        try:
            if known is None or not await pipelines.stands(config, known.id):
                known = await pipelines.schedule(config)
                self.actions.append(f"scheduled {known.name}")
            newest = await pipelines.last_run(config, known.id)
        except InputError as error:
            return known, run, Trouble("KubeflowRefused", str(error))
        except ExSearchError as error:
            return known, run, Trouble("KubeflowAway", str(error))
        self.memory.looked = time.monotonic()
        return known, newest or run, None

    # --- writing

    async def _patch(self, change: Object, action: str) -> None:
        """Change the agent's metadata."""
        meta = self.meta
        self.item = await self.api.patch_metadata(
            AGENTS, meta["namespace"], meta["name"], meta["resourceVersion"], change
        )
        self.actions.append(action)

    async def _write(
        self, status: dict[str, Any], told: tuple[Told, ...] | list[Told] = ()
    ) -> None:
        """Write the status, where it differs, after telling what changed."""
        await self._tell(told)
        change = states.change(status, self.status)
        if not change:
            return
        meta = self.meta
        self.item = await self.api.patch_status(
            AGENTS, meta["namespace"], meta["name"], meta["resourceVersion"], change
        )
        self.actions.append("status")
        for one in told:
            if one.transition:
                self.means.metrics.transitions.labels(one.transition).inc()

    async def _tell(self, told: tuple[Told, ...] | list[Told]) -> None:
        for one in told:
            await tell(self.api, self.meta, one, self.now)
            log.info("%s/%s: %s: %s", self.meta["namespace"], self.meta["name"], one.reason,
                     one.message)  # fmt: skip

    async def _fail(self, trouble: Trouble) -> Outcome:
        told = Told(trouble.reason, trouble.message, True, key=trouble.message)
        await self._write(states.failed(self.meta, self.status, trouble, self.now), [told])
        return self._outcome(self.means.pace.pending, trouble)

    # --- the end

    async def _finish(self) -> Outcome:
        """Remove what no garbage collector knows, then let the agent go.

        Its objects go with it; models and indexes stay where spec.on_delete says so.
        """
        finalizers = self.meta.get("finalizers", [])
        if FINALIZER not in finalizers:
            return self._outcome(None, None)
        await self._write({**self.status, "phase": "Deleting"})
        trouble = await self._unschedule()
        if trouble is not None and self.status.get("recurringRun"):
            await self._write(
                {**states.failed(self.meta, self.status, trouble, self.now), "phase": "Deleting"}
            )
            return self._outcome(self.means.pace.pending, trouble)
        if trouble is not None:
            await self._tell([Told("NotUnscheduled", trouble.message, True)])
        left = [name for name in finalizers if name != FINALIZER]
        await self._patch({"finalizers": left}, "let go")
        return self._outcome(None, None)

    async def _unschedule(self) -> Trouble | None:
        """Remove the recurring run; why it cannot be."""
        try:
            agent = read_agent(self.item)
            await self.means.pipelines.remove(agent.run)
        except ExSearchError as error:
            return Trouble("NotUnscheduled", str(error))
        self.actions.append("unscheduled")
        return None


def _known(status: dict[str, Any]) -> tuple[Recurring | None, Run | None]:
    """Schedule and newest run, as the status tells of them."""
    recurring, last = status.get("recurringRun"), status.get("lastRun")
    known = Recurring(**recurring) if recurring else None
    if not last:
        return known, None
    text = {key: last.get(key, "") for key in ("id", "name", "state", "started", "finished", "url")}
    return known, Run(**text, indexed=text["state"] == "SUCCEEDED")
