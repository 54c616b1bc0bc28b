"""What the states of a job and its pods are taken to mean."""

from __future__ import annotations

from typing import Any

import pytest

from exsearch.config import ClusterConfig
from exsearch.kube import pods
from exsearch.kube.names import Work
from exsearch.kube.scene import Order, Outcome, Scene
from exsearch.kube.training import make_order

pytestmark = pytest.mark.unit

Pod = dict[str, Any]


def order(**training: Any) -> Order:
    settings = {"launcher": "pytorchjob", "nodes": 2, "backoff_limit": 1, **training}
    config = ClusterConfig.model_validate({"training": settings})
    return make_order(Work("runs/test", "align", "job.json", "f00d"), config)


ORDER = order()


def pod(index: int, phase: str, uid: str = "", **status: Any) -> Pod:
    meta = {"name": f"{ORDER.name}-worker-{index}", "uid": uid or f"u{index}"}
    return {"metadata": meta, "status": {"phase": phase, **status}}


def ended(index: int, code: int, reason: str = "Error", **more: Any) -> Pod:
    state = {"terminated": {"exitCode": code, "reason": reason}}
    containers = [{"name": "pytorch", "state": state}]
    return pod(index, "Failed", containerStatuses=containers, **more)


def waiting(reason: str) -> Pod:
    state = {"waiting": {"reason": reason, "message": "no such image"}}
    return pod(0, "Pending", containerStatuses=[{"name": "pytorch", "state": state}])


def disrupted(index: int, phase: str = "Running") -> Pod:
    condition = {"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler"}
    return pod(index, phase, conditions=[condition])


def leaving(found: Pod) -> Pod:
    return {**found, "metadata": {**found["metadata"], "deletionTimestamp": "now"}}


def job(*conditions: tuple[str, str]) -> dict[str, Any]:
    listed = [{"type": t, "status": "True", "message": m} for t, m in conditions]
    meta = {"name": ORDER.name, "uid": "job"}
    return {"metadata": meta, "status": {"conditions": listed}}


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def judged(
    *found: Pod, conditions: tuple[tuple[str, str], ...] = (), after: float = 0, **limits: Any
) -> Outcome | None:
    """The judgement when these pods have been seen for so many seconds."""
    clock = Clock()
    scene = Scene(order(**limits), job(), stuck=300, clock=clock)
    scene.see_job({ORDER.name: job(*conditions)})
    for moment in (0.0, after):
        clock.now = moment
        scene.see_pods({p["metadata"]["name"]: p for p in found})
    return scene.judge()


@pytest.mark.parametrize(
    ("found", "code", "interrupted"),
    [
        (ended(0, 1), 1, False),
        (ended(0, 127), 127, False),
        (ended(0, 137), 137, True),
        (ended(0, 143), 143, True),
        (ended(0, 137, "OOMKilled"), 137, False),
        (pod(0, "Failed", reason="Evicted", message="The node was low on disk"), None, True),
    ],
    ids=["error", "not found", "killed", "terminated", "memory", "evicted"],
)
def test_how_a_pod_ended(found: Pod, code: int | None, interrupted: bool) -> None:
    end = pods.end(found, "pytorch")
    assert end is not None
    assert (end.code, end.interrupted) == (code, interrupted)


@pytest.mark.parametrize(
    ("found", "counts"),
    [
        (ended(0, 137), True),
        (leaving(ended(0, 137)), False),  # the operator cleans up
        (ended(0, 1), False),
        (disrupted(0), True),
        (leaving(disrupted(0)), True),
        (pod(0, "Running"), False),
    ],
)
def test_only_what_came_from_outside_is_an_interruption(found: Pod, counts: bool) -> None:
    assert (pods.interruption(found, "pytorch") is not None) == counts


RUNNING = pod(0, "Running")
FAILED = (("Failed", 'job "x" is failing because "Worker" replica(s) failed.'),)


@pytest.mark.parametrize(
    ("found", "options", "expected"),
    [
        ([RUNNING], {}, None),
        ([], {"conditions": (("Succeeded", ""),)}, ""),
        ([ended(1, 1), RUNNING], {"conditions": FAILED}, "worker-1 ended with exit code 1"),
        ([ended(1, 137)], {}, None),
        ([ended(0, 137), ended(1, 143)], {}, "2 pods were ended from outside"),
        ([ended(0, 137, "OOMKilled")], {}, "Raise cluster.training.resources.memory"),
        ([waiting("ImagePullBackOff")], {"after": 299}, None),
        ([waiting("ImagePullBackOff")], {"after": 301}, "ImagePullBackOff): no such image"),
        ([waiting("ContainerCreating")], {"after": 301}, None),
        ([pod(0, "Pending")], {"after": 11, "queue_deadline": 10}, "did not start within 10"),
        ([RUNNING], {"after": 11, "queue_deadline": 10}, None),
        ([RUNNING], {"after": 11, "deadline": 10}, "ran for more than 10"),
        ([], {"after": 11, "deadline": 10}, None),  # waiting is not running
    ],
)
def test_the_judgement(found: list[Pod], options: dict[str, Any], expected: str | None) -> None:
    outcome = judged(*found, **options)
    if expected is None:
        assert outcome is None
    else:
        assert outcome is not None
        assert expected in outcome.failure
        assert bool(outcome.failure) == bool(expected)


@pytest.mark.parametrize(
    ("found", "again"),
    [
        ([ended(0, 137), ended(1, 1)], True),
        ([ended(0, 1), ended(1, 1)], False),
        ([ended(0, 1), leaving(ended(1, 143))], False),  # cleaned up after the error
        ([disrupted(0), ended(1, 1)], True),
    ],
)
def test_a_failure_that_an_interruption_caused_may_be_tried_again(
    found: list[Pod], again: bool
) -> None:
    outcome = judged(*found, conditions=FAILED)
    assert outcome is not None
    assert outcome.interrupted == again
    assert not outcome.running


def test_another_job_of_the_name_is_not_ours() -> None:
    scene = Scene(ORDER, job(), stuck=300)
    other = job()
    other["metadata"]["uid"] = "other"
    scene.see_job({ORDER.name: other})
    outcome = scene.judge()
    assert outcome is not None
    assert "deleted by someone else" in outcome.failure


def test_a_warning_is_told_once_and_only_about_this_job() -> None:
    scene = Scene(ORDER, job(), stuck=300)

    def event(name: str, uid: str) -> dict[str, Any]:
        about = {"name": ORDER.name, "uid": uid}
        return {name: {"involvedObject": about, "reason": "FailedMount", "message": "no volume"}}

    assert scene.see_warnings(event("a", "stranger")) == []
    assert scene.see_warnings(event("b", "job")) == [f"{ORDER.name}: no volume (FailedMount)"]
    assert scene.see_warnings({**event("b", "job"), **event("c", "job")}) == []


def test_a_job_tidied_away_after_its_end_has_ended() -> None:
    scene = Scene(ORDER, job(), stuck=300)
    scene.see_job({ORDER.name: job(("Succeeded", ""))})
    scene.see_job({})
    assert scene.judge() == Outcome()


def test_a_preempted_job_queues_anew_and_its_wait_is_not_running_time() -> None:
    clock = Clock()
    scene = Scene(order(deadline=10, queue_deadline=100), job(), stuck=300, clock=clock)
    scene.see_pods({"a": RUNNING})
    clock.now = 9
    preempted = job() | {"spec": {"runPolicy": {"suspend": True}}}
    scene.see_job({ORDER.name: preempted})
    scene.see_pods({})
    clock.now = 108
    assert scene.judge() is None
    clock.now = 110
    outcome = scene.judge()
    assert outcome is not None
    assert "did not start within 100" in outcome.failure
