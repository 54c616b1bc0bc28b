"""What is known of a job in the cluster, and what it means. No input or output."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from exsearch.kube import pods
from exsearch.kube.operators import Operator
from exsearch.kube.watch import Snapshot


@dataclass(frozen=True)
class Order:
    """A job to be run, and its limits."""

    operator: Operator
    manifest: dict[str, Any]
    deadline: float
    """Seconds from the start of its first pod."""
    queue_deadline: float
    """Seconds until then."""
    interruptions: int
    """Pods that may be ended from outside."""

    @property
    def name(self) -> str:
        """The job's name."""
        return self.manifest["metadata"]["name"]

    @property
    def namespace(self) -> str:
        """Its namespace."""
        return self.manifest["metadata"]["namespace"]

    @property
    def title(self) -> str:
        """How messages call it."""
        return f"{self.manifest['kind']} {self.name}"


@dataclass(frozen=True)
class Outcome:
    """The end of a job, or of our patience with it."""

    failure: str = ""
    """What went wrong; empty: nothing."""
    pod: str = ""
    """The pod whose log tells more."""
    interrupted: bool = False
    """It failed because pods were ended from outside: it may be made again."""
    running: bool = False
    """The cluster still has it, and would go on with it."""


@dataclass
class Scene:
    """The job, its pods and the warnings about them, as last seen.

    Args:
        stuck: seconds after which what keeps a pod from starting counts as lasting.
        clock: seconds, for tests.
    """

    order: Order
    job: dict[str, Any] | None
    stuck: float
    clock: Callable[[], float] = time.monotonic
    members: Snapshot = field(default_factory=dict)
    """Its pods, by name."""
    looked: bool = False
    """The pods have been listed, be there any or none."""
    said: deque[str] = field(default_factory=lambda: deque(maxlen=30))
    """Last lines of the first pod."""
    _interruptions: dict[str, pods.End] = field(default_factory=dict)
    _warnings: dict[tuple[str, str, str], str] = field(default_factory=dict)
    _obstacles: dict[str, float] = field(default_factory=dict)
    _started: float | None = None

    def __post_init__(self) -> None:
        self._begun = self.clock()
        self.uid = "" if self.job is None else self.job["metadata"]["uid"]

    def see_job(self, jobs: Snapshot) -> None:
        """Take note of the job; another one of its name is not it."""
        found = jobs.get(self.order.name)
        mine = found is not None and found["metadata"]["uid"] == self.uid
        if not mine and self.job and self.order.operator.state(self.job)[0] != "waiting":
            return  # it had ended, and was tidied away
        self.job = found if mine else None
        if self.job and _suspended(self.job) and self._started is not None:
            self._begun, self._started = self.clock(), None  # preempted: it queues again

    def see_pods(self, found: Snapshot) -> None:
        """Take note of the job's pods."""
        self.looked = True
        container = self.order.operator.container
        self.members = {name: pod for name, pod in found.items() if self._owns(pod)}
        for pod in self.members.values():
            ended = pods.interruption(pod, container)
            if ended:
                self._interruptions[pod["metadata"]["uid"]] = ended
            if self._started is None and pods.started(pod):
                self._started = self.clock()
        blocked = {pods.name(pod) for pod in self.members.values() if _lasting(pod)}
        self._obstacles = {name: self._obstacles.get(name, self.clock()) for name in blocked}

    def _owns(self, pod: dict[str, Any]) -> bool:
        """Not a leftover of an earlier job of the same name.

        A TrainJob's pods belong to a Job of a JobSet, whose uids we do not know.
        """
        owners = pod["metadata"].get("ownerReferences") or ()
        kind = self.order.manifest["kind"]
        return all(o["uid"] == self.uid for o in owners if o["kind"] == kind)

    def see_warnings(self, events: Snapshot) -> list[str]:
        """Take note of the cluster's warnings; returns those that are new and about this job."""
        known = {self.uid} | {pod["metadata"]["uid"] for pod in self.members.values()}
        fresh: list[str] = []
        for event in events.values():
            about = event["involvedObject"]
            if about.get("uid") not in known:
                continue
            key = about["name"], event.get("reason", ""), event.get("message", "")
            if key not in self._warnings:
                self._warnings[key] = f"{key[0]}: {key[2]} ({key[1]})"
                fresh.append(self._warnings[key])
        return fresh

    @property
    def lead(self) -> dict[str, Any] | None:
        """The first pod, once it has something to say."""
        for pod in self.members.values():
            if self.order.operator.leads(pod, self.order.name) and pods.started(pod):
                return pod
        return None

    def over(self, uid: str) -> bool:
        """Whether the pod with this uid has ended or is gone."""
        for pod in self.members.values():
            if pod["metadata"]["uid"] == uid:
                ended = pods.end(pod, self.order.operator.container)
                return pods.over(pod) or ended is not None
        return True

    def judge(self) -> Outcome | None:
        """How it ended, None while it goes on."""
        order = self.order
        if self.job is None:
            return Outcome(f"{order.title} was deleted by someone else; rerun the step")
        state, words = order.operator.state(self.job)
        if state == "succeeded":
            return Outcome()
        if state == "failed":
            return self._failed(words)
        return self._out_of_memory() or self._too_often() or self._too_late()

    def _failed(self, words: str) -> Outcome:
        """The operator gave up: which pod was it?"""
        container = self.order.operator.container
        ends = [end for pod in self.members.values() if (end := pods.end(pod, container))]
        ends += [end for end in self._interruptions.values() if end not in ends]
        memory = self._out_of_memory()
        if memory:
            return memory
        culprit = min(ends, key=lambda end: (end.interrupted, end.pod), default=None)
        told = f"{self.order.title} failed: {words}"
        if culprit:
            told += f"\n{culprit}"
        else:
            told += "".join(f"\n{warning}" for warning in list(self._warnings.values())[-3:])
        again = 0 < len(self._interruptions) <= self.order.interruptions
        return Outcome(told, culprit.pod if culprit else "", interrupted=again)

    def _out_of_memory(self) -> Outcome | None:
        for pod in self.members.values():
            end = pods.end(pod, self.order.operator.container)
            if end and end.out_of_memory:
                return Outcome(
                    f"{self.order.title}: {end}. Raise cluster.training.resources.memory, "
                    "lower micro_tokens, or spread the model over more pods (zero_stage: 3)",
                    end.pod,
                    running=True,
                )
        return None

    def _too_often(self) -> Outcome | None:
        ends = list(self._interruptions.values())
        if len(ends) <= self.order.interruptions:
            return None
        return Outcome(
            f"{self.order.title}: {len(ends)} pods were ended from outside, more than "
            f"cluster.training.backoff_limit; the last: {ends[-1]}",
            ends[-1].pod,
            running=True,
        )

    def _too_late(self) -> Outcome | None:
        order, now = self.order, self.clock()
        obstacles = [found for pod in self.members.values() if (found := pods.obstacle(pod))]
        for found in obstacles:
            since = self._obstacles.get(found.pod, now)
            if found.lasting and now - since > self.stuck:
                return Outcome(f"{order.title}: {found}", running=True)
        if self._started is None and now - self._begun > order.queue_deadline:
            why = [str(found) for found in obstacles] or list(self._warnings.values())[-3:]
            told = "\n".join(why) or "No pod was made: is the queue full, does the operator run?"
            return Outcome(
                f"{order.title} did not start within {order.queue_deadline:.0f} seconds "
                f"(cluster.training.queue_deadline).\n{told}",
                running=True,
            )
        if self._started is not None and now - self._started > order.deadline:
            return Outcome(
                f"{order.title} ran for more than {order.deadline:.0f} seconds "
                "(cluster.training.deadline). Raise it and rerun the step: it goes on from its "
                "last checkpoint",
                running=True,
            )
        return None


def _suspended(job: dict[str, Any]) -> bool:
    """Kueue has not admitted it, or has taken its place away."""
    spec = job.get("spec", {})
    return bool(spec.get("suspend") or spec.get("runPolicy", {}).get("suspend"))


def _lasting(pod: dict[str, Any]) -> bool:
    found = pods.obstacle(pod)
    return found is not None and found.lasting
