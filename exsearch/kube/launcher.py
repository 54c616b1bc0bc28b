"""Runs a job of the cluster to its end, under whatever befalls it meanwhile.

A job's name is the same at every try of its step, so a retried step finds the job that the
try before it made, and goes on watching that one. Nothing is kept in this process that the
cluster does not know: it may be killed at any moment and started again.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass

from exsearch.errors import ExSearchError, InputError
from exsearch.kube import logs, pods
from exsearch.kube.answers import EVENTS, PODS, Exists
from exsearch.kube.client import Api, Object
from exsearch.kube.names import MANAGED_BY, MANAGER, fingerprint_of
from exsearch.kube.scene import Order, Outcome, Scene
from exsearch.kube.watch import Snapshot, snapshots

Tell = Callable[[str], None]

_TICK = 1.0
"""Seconds between two looks at the clock."""
_LINES = 30
"""Lines of a failed pod's log in the error."""


@dataclass(frozen=True)
class Patience:
    """Seconds to wait for what should not take long."""

    stuck: float = 300.0
    """For a pod whose image or configuration cannot be had."""
    drain: float = 15.0
    """For the rest of the log, once the job has ended."""
    removal: float = 300.0
    """For a job to be gone with all its pods."""
    farewell: float = 20.0
    """For the deletion of the job when this process is asked to end."""


class _GivenUp(Exception):
    """Who listens to the log has heard enough."""

    def __init__(self, why: ExSearchError) -> None:
        super().__init__(str(why))
        self.why = why


class Launcher:
    """Creates, adopts, follows and removes jobs.

    Args:
        api: as the account that may do so.
        on_line: called with each line of the first pod's log. An `ExSearchError` that it
            raises ends the job.
        on_note: called with what a person would want to know, early.
        keep: leave the job alone when the launcher is cancelled; else it is deleted.
    """

    def __init__(
        self,
        api: Api,
        on_line: Tell = lambda _: None,
        on_note: Tell = lambda _: None,
        *,
        keep: bool = False,
        patience: Patience = Patience(),
    ) -> None:
        self._api = api
        self._on_line, self._on_note = on_line, on_note
        self._keep, self._patience = keep, patience

    async def run(self, order: Order) -> None:
        """Run the job to its end; one that has succeeded is not run again.

        Raises:
            InputError: the API does not accept the job, or another's bears its name.
            ExSearchError: it failed, was past a limit, or the API was away for too long. The
                message names the pod and ends with its last lines.
            asyncio.CancelledError: as ever; the job has been deleted first.
        """
        tries = order.interruptions
        while True:
            job = await self._obtain(order)
            if job is None:
                return
            scene = Scene(order, job, self._patience.stuck)
            try:
                outcome = await self._follow(scene)
            except asyncio.CancelledError:
                if not self._keep:
                    await self._leave(order, job)
                raise
            except _GivenUp as end:
                await self._delete(order, job)
                raise end.why from None
            if not outcome.failure:
                return
            if outcome.interrupted and tries > 0:
                tries -= 1
                self._on_note(f"{outcome.failure}\n{order.title} is made again")
                continue
            raise ExSearchError(await self._explained(order, job, outcome, scene.said))

    async def _obtain(self, order: Order) -> Object | None:
        """The job, created or adopted; None where it has succeeded before."""
        kind, name = order.operator.kind, order.name
        while True:
            try:
                job = await self._api.create(kind, order.manifest)
            except Exists:
                pass
            else:
                self._on_note(f"created {order.title} in namespace {order.namespace}")
                return job
            found = await self._api.get(kind, order.namespace, name)
            if found is None:
                continue
            theirs = fingerprint_of(found)
            if theirs is None:
                raise InputError(
                    f"namespace {order.namespace} has a {order.title} that is not ours (no label "
                    f"{MANAGED_BY}={MANAGER}): delete it, or run in another namespace"
                )
            state, _ = order.operator.state(found)
            same = theirs == fingerprint_of(order.manifest)
            leaving = "deletionTimestamp" in found["metadata"]
            if same and not leaving and state != "failed":
                self._on_note(f"{order.title} is there already, {state}")
                return None if state == "succeeded" else found
            why = "has failed" if same else "was made for other settings"
            self._on_note(f"replacing {order.title}, which {why}")
            await self._replace(order, found)

    async def _replace(self, order: Order, job: Object) -> None:
        """Delete a job and wait until it is gone with its pods."""
        await self._delete(order, job, foreground=True)
        kind, uid = order.operator.kind, job["metadata"]["uid"]
        seen = snapshots(self._api, kind, order.namespace, _named(order.name))
        try:
            async with asyncio.timeout(self._patience.removal):
                async for jobs in seen:
                    if not any(item["metadata"]["uid"] == uid for item in jobs.values()):
                        return
        except TimeoutError:
            raise ExSearchError(
                f"{order.title} is still being deleted after {self._patience.removal:.0f} "
                "seconds. Look at its finalizers and pods, then rerun the step"
            ) from None
        finally:
            await seen.aclose()

    async def _delete(self, order: Order, job: Object, foreground: bool = False) -> None:
        uid = job["metadata"]["uid"]
        kind = order.operator.kind
        await self._api.delete(kind, order.namespace, order.name, uid=uid, foreground=foreground)

    async def _leave(self, order: Order, job: Object) -> None:
        """Delete the job though we are being cancelled, in the little time there is."""
        try:
            async with asyncio.timeout(self._patience.farewell):
                await self._delete(order, job)
        except (TimeoutError, ExSearchError) as error:
            self._on_note(f"{order.title} could not be deleted ({error}); a retry adopts it")
        else:
            self._on_note(f"deleted {order.title}")

    async def _follow(self, scene: Scene) -> Outcome:
        """Watch until there is an outcome, and hear the log out."""
        changed = asyncio.Event()
        watches = [asyncio.create_task(watch) for watch in self._watches(scene, changed)]
        listening: dict[str, asyncio.Task[None]] = {}
        try:
            while (outcome := scene.judge()) is None:
                self._listen(scene, listening)
                changed.clear()
                await _first([*watches, *listening.values()], changed)
            await self._look(scene, watches, changed)
            self._listen(scene, listening)
            if listening and not outcome.running:
                await asyncio.wait(listening.values(), timeout=self._patience.drain)
                _raise_errors(listening.values())
            return outcome
        finally:
            tasks = [*watches, *listening.values()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _look(
        self, scene: Scene, watches: list[asyncio.Task[None]], changed: asyncio.Event
    ) -> None:
        """Wait for the first list of pods: a short job may have ended before it came."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._patience.drain):
                while not scene.looked:
                    changed.clear()
                    await _first(watches, changed)

    def _watches(self, scene: Scene, changed: asyncio.Event) -> Iterable:
        order = scene.order
        kind, owned = order.operator.kind, f"{order.operator.pod_label}={order.name}"

        def see_warnings(events: Snapshot) -> None:
            for warning in scene.see_warnings(events):
                self._on_note(warning)

        for watched, selection, see in (
            (kind, _named(order.name), scene.see_job),
            (PODS, {"labelSelector": owned}, scene.see_pods),
            (EVENTS, {"fieldSelector": "type=Warning"}, see_warnings),
        ):
            seen = snapshots(self._api, watched, order.namespace, selection)
            yield _pass_on(seen, see, changed)

    def _listen(self, scene: Scene, listening: dict[str, asyncio.Task[None]]) -> None:
        """Follow the log of the first pod, and of the one that replaces it."""
        lead = scene.lead
        if lead is None or lead["metadata"]["uid"] in listening:
            return
        for earlier in listening.values():
            earlier.cancel()
        uid = lead["metadata"]["uid"]
        follower = logs.Follower(
            self._api,
            scene.order.namespace,
            pods.name(lead),
            scene.order.operator.container,
            lambda: scene.over(uid),
        )
        listening[uid] = asyncio.create_task(self._hear(follower, scene))

    async def _hear(self, follower: logs.Follower, scene: Scene) -> None:
        async for line in follower.lines():
            scene.said.append(line)
            try:
                self._on_line(line)
            except ExSearchError as error:
                raise _GivenUp(error) from error

    async def _explained(
        self, order: Order, job: Object, outcome: Outcome, said: Iterable[str]
    ) -> str:
        """The failure with the last lines of its pod; a job that would go on is deleted."""
        lines: list[str] = []
        if outcome.pod:
            container = order.operator.container
            lines = await logs.tail(self._api, order.namespace, outcome.pod, container, _LINES)
        if outcome.running:
            await self._delete(order, job)
        lines = lines or list(said)
        return "\n".join([outcome.failure, "Last lines:", *lines]) if lines else outcome.failure


def _named(name: str) -> dict[str, str]:
    return {"fieldSelector": f"metadata.name={name}"}


async def _pass_on(
    seen: AsyncIterator[Snapshot], see: Callable[[Snapshot], None], changed: asyncio.Event
) -> None:
    async for found in seen:
        see(found)
        changed.set()


async def _first(tasks: list[asyncio.Task[None]], changed: asyncio.Event) -> None:
    """Wait for a change, an error or the next tick.

    Raises:
        Whatever a task raised.
    """
    waiting = asyncio.create_task(changed.wait())
    running = [task for task in tasks if not task.done()]
    try:
        await asyncio.wait([waiting, *running], timeout=_TICK, return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiting.cancel()
    _raise_errors(tasks)


def _raise_errors(tasks: Iterable[asyncio.Task[None]]) -> None:
    for task in tasks:
        if task.done() and not task.cancelled() and (error := task.exception()):
            raise error
