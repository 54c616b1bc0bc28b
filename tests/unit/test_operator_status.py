"""What the status says, when the next run starts, what is asked of Prometheus, who works when."""

from __future__ import annotations

import asyncio
import math
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exsearch.config import parse
from exsearch.errors import ExSearchError, InputError
from exsearch.kube.serving import Service
from exsearch.operator.agent import Agent, Served, read_agent, settings
from exsearch.operator.canary import NoFigures, measure
from exsearch.operator.cron import next_time
from exsearch.operator.desired import desired, holds
from exsearch.operator.kfp import Run, schedule_digest
from exsearch.operator.look import Outcome
from exsearch.operator.metrics import Metrics
from exsearch.operator.promotion import Standing
from exsearch.operator.status import Seen, Trouble, bad_spec, condition, next_status
from exsearch.operator.work import Key, Work

pytestmark = pytest.mark.unit

META = {"name": "bot", "namespace": "search", "uid": "u", "generation": 3}


def agent(**spec: Any) -> Agent:
    return read_agent({"metadata": META, "spec": {"model": {"path": "/mnt/exsearch/m"}, **spec}})


def run(state: str, *, indexed: bool = False) -> Run:
    return Run("id", "weekly", state, "", "", "http://runs/id", indexed)


def service(*, ready: bool) -> Service:
    return Service(
        namespace="search", name="bot", mode="Standard", model="pvc://exsearch/m", run="",
        digest="", ready=ready, why="" if ready else "loading", url="http://bot",
        canary_percent=None, traffic=(),
    )  # fmt: skip


PHASES: list[tuple[dict[str, Any], dict[str, Any], str, dict[str, str]]] = [
    # spec, seen → phase, reasons
    ({}, {}, "Pending", {"IndexReady": "NoRun", "Serving": "NoService"}),
    ({}, {"run": run("PENDING")}, "Indexing", {"Trained": "Training"}),
    ({}, {"run": run("RUNNING", indexed=True)}, "Training", {"IndexReady": "Indexed"}),
    ({"retrieval": {"url": "http://r"}}, {"run": run("RUNNING")}, "Training",
     {"IndexReady": "Elsewhere"}),
    ({}, {"run": run("FAILED")}, "Pending", {"IndexReady": "RunFailed", "Trained": "RunFailed"}),
    ({}, {"service": service(ready=True), "run": run("RUNNING")}, "Serving",
     {"Serving": "Ready"}),
    ({}, {"service": service(ready=False)}, "Pending", {"Serving": "NotReady"}),
    ({"pinned": "s3://b/m"}, {"service": service(ready=True)}, "Serving", {"Serving": "Pinned"}),
    ({"suspend": True}, {"service": service(ready=True)}, "Suspended",
     {"Scheduled": "Suspended", "Serving": "Ready"}),
    ({"pipeline": {"schedule": {"enabled": False}}}, {}, "Pending", {"Scheduled": "Disabled"}),
    ({}, {"unscheduled": Trouble("KubeflowAway", "away")}, "Pending", {"Degraded": "AsWanted"}),
    ({}, {"unscheduled": Trouble("KubeflowRefused", "who are you")}, "Degraded",
     {"Scheduled": "KubeflowRefused", "Degraded": "KubeflowRefused"}),
]  # fmt: skip


@pytest.mark.parametrize(("spec", "seen", "phase", "reasons"), PHASES)
def test_phase_and_conditions(
    spec: dict[str, Any], seen: dict[str, Any], phase: str, reasons: dict[str, str]
) -> None:
    state = Seen(agent(**spec), Standing(), **seen)
    status, _ = next_status(state, {}, 1e9)
    assert status["phase"] == phase
    found = {c["type"]: c["reason"] for c in status["conditions"]}
    assert {**found, **reasons} == found
    assert status["observedGeneration"] == 3
    again, told = next_status(state, status, 1e9 + 50)
    assert again == status, "what has not changed keeps its time"
    assert told == []


def test_an_index_stays_ready_and_a_failed_run_is_told_once() -> None:
    first, _ = next_status(Seen(agent(), Standing(), run=run("SUCCEEDED", indexed=True)), {}, 1e9)
    failed = Seen(agent(), Standing(), run=run("FAILED"))
    status, told = next_status(failed, first, 2e9)
    assert [t.reason for t in told] == ["RunFailed"]
    for name, reason in (("IndexReady", "Indexed"), ("Trained", "RunFailed")):
        found = condition(status, name)
        assert found is not None
        assert (found["status"], found["reason"]) == ("True", reason)
        assert found["lastTransitionTime"] == "2001-09-09T01:46:40Z"


def test_a_bad_spec_leaves_the_rest_as_it_was() -> None:
    before, _ = next_status(Seen(agent(), Standing(), service=service(ready=True)), {}, 1e9)
    status = bad_spec(META, before, "spec.seed: what", 2e9)
    assert status["phase"] == "Degraded"
    assert condition(status, "Serving") == condition(before, "Serving")
    assert bad_spec(META, status, "spec.seed: what", 3e9) == status


CRONS = [
    ("0 0 3 * * 6", "2026-11-25T11:00:00", "2026-11-28T03:00:00"),
    ("0 0 3 * * SAT", "2026-11-28T03:00:00", "2026-12-05T03:00:00"),
    ("30 */15 * * * ?", "2026-11-25T11:00:31", "2026-11-25T11:15:30"),
    ("0 0 0 29 2 *", "2026-11-25T11:00:00", "2028-02-29T00:00:00"),
    ("0 0 9-17/4 1,15 JAN,JUL *", "2026-11-25T11:00:00", "2027-01-01T09:00:00"),
    ("0 0 0 13 * 5", "2026-11-25T11:00:00", "2026-11-27T00:00:00"),
    ("0 0 0 * * 7", "2026-11-25T11:00:00", "2026-11-29T00:00:00"),
    ("0 0 0 31 2 *", "2026-11-25T11:00:00", None),
    ("@every 1h", "2026-11-25T11:00:00", None),
    ("0 0 99 * * *", "2026-11-25T11:00:00", None),
]


@pytest.mark.parametrize(("cron", "after", "then"), CRONS)
def test_when_the_next_run_starts(cron: str, after: str, then: str | None) -> None:
    found = next_time(cron, datetime.fromisoformat(after).replace(tzinfo=UTC))
    assert found == (then and datetime.fromisoformat(then).replace(tzinfo=UTC))


async def test_figures_come_from_questions_of_the_candidates_pods() -> None:
    asked: list[str] = []
    values = iter(["2", "60", "3", "NaN"])

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.params["query"])
        result = [{"metric": {}, "value": [0, next(values)]}]
        return httpx.Response(200, json={"status": "success", "data": {"result": result}})

    async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as http:
        found = await measure(http, "http://prometheus/", "search", "d2", 90)
    assert (found.pods, found.requests, found.errors) == (2.0, 60.0, 3.0)
    assert math.isnan(found.latency)
    its = 'exsearch_agent_model_info{namespace="search",role="champion",digest="d2"}'
    assert all(its in query for query in asked)
    assert all("[90s]" in query for query in asked[1:])


@pytest.mark.parametrize(
    "answer",
    [httpx.Response(503), httpx.Response(200, text="<html>"), httpx.Response(200, json={})],
    ids=["away", "a proxy", "no data"],
)
async def test_no_figures_are_an_error_and_not_zero(answer: httpx.Response) -> None:
    transport = httpx.MockTransport(lambda request: answer)
    async with httpx.AsyncClient(transport=transport) as http:
        with pytest.raises(NoFigures, match=r"spec\.canary\.prometheus"):
            await measure(http, "http://prometheus", "search", "d", 90)


def test_the_settings_of_runs_are_the_operators_where_the_spec_is_silent() -> None:
    found = settings(agent(suspend=True), ("d1",))
    assert found.pipeline.name == "search-bot"
    assert not found.pipeline.schedule.enabled
    assert (found.cluster.deploy.name, found.cluster.deploy.agent) == ("", "bot")
    assert found.cluster.deploy.withdrawn == ("d1",)
    assert found.cluster.namespace == "search"
    assert found.retrieval.index.startswith("/mnt/exsearch/indexes/")
    other = settings(agent(data={"corpus": "/mnt/exsearch/other.jsonl"}), ())
    assert other.retrieval.index != found.retrieval.index
    (run_yaml, *_) = desired(agent(suspend=True), Served("/mnt/exsearch/m"), ("d1",))
    assert parse(run_yaml["data"]["run.yaml"]) == found
    assert schedule_digest(found) != schedule_digest(settings(agent(), ("d1",)))


@pytest.mark.parametrize(
    ("spec", "replaced"),
    [
        ({"agent": {"max_steps": 3}}, True),
        ({"serving": {"deadline": 5.0}}, True),
        ({"em": {"iterations": 7}}, False),
        ({"suspend": True}, False),
    ],
)
def test_pods_are_replaced_when_what_they_read_changes(
    spec: dict[str, Any], replaced: bool
) -> None:
    def pods(found: Agent) -> str:
        service = desired(found, Served("/mnt/exsearch/m"), ())[2]
        return service["spec"]["predictor"]["annotations"]["exsearch.dev/settings"]

    assert (pods(agent(**spec)) != pods(agent())) == replaced


def test_a_model_that_no_pod_can_mount_is_refused() -> None:
    for spec in ({"model": {"path": "/home/m"}}, {"pinned": "/home/m"}, {"seed": "x"}):
        with pytest.raises(InputError):
            agent(**spec)


values = st.recursive(
    st.integers(0, 2) | st.text("ab", max_size=1),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("xy"), inner),
    max_leaves=6,
)


@given(values, values)
def test_an_object_holds_what_is_wanted_when_more_is_there(wanted: Any, other: Any) -> None:
    assert holds(wanted, wanted)
    assert holds({"a": wanted}, {"a": wanted, "b": other})
    if holds(wanted, other) and holds(other, wanted):
        assert wanted == other


# --- the queue


class Looks:
    """Counts looks; each takes until it is let go."""

    def __init__(self, *outcomes: Outcome | Exception) -> None:
        self.outcomes = list(outcomes)
        self.seen: list[Key] = []
        self.at_once = 0
        self.most: dict[Key, int] = {}
        self._now: dict[Key, int] = {}

    async def __call__(self, namespace: str, name: str) -> Outcome:
        key = (namespace, name)
        self.seen.append(key)
        self._now[key] = self._now.get(key, 0) + 1
        self.most[key] = max(self.most.get(key, 0), self._now[key])
        await asyncio.sleep(0.02)
        self._now[key] -= 1
        outcome = self.outcomes.pop(0) if self.outcomes else Outcome()
        if isinstance(outcome, Exception):
            raise outcome
        return outcome


async def work(looks: Looks, *adds: tuple[str, float], seconds: float = 0.3) -> Metrics:
    metrics = Metrics()
    queue = Work(looks, metrics, first=0.05)
    task = asyncio.create_task(queue.run())
    for name, delay in adds:
        queue.add(("n", name), delay)
    await asyncio.sleep(0.01)
    for name, _ in adds:  # while they are looked at
        queue.add(("n", name))
    await asyncio.sleep(seconds)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    return metrics


async def test_an_agent_named_often_is_looked_at_once_and_once_more() -> None:
    looks = Looks()
    await work(looks, ("a", 0.0), ("a", 0.0), ("a", 0.0))
    assert looks.seen == [("n", "a")] * 2
    assert looks.most == {("n", "a"): 1}, "never by two workers at a time"


async def test_the_earlier_of_two_times_holds() -> None:
    looks = Looks()
    await work(looks, ("a", 60.0))
    assert looks.seen == [("n", "a")]


async def test_after_failures_the_pause_grows_and_others_go_on() -> None:
    errors = [ExSearchError("away"), RuntimeError("a bug")] * 20
    looks = Looks(*errors)
    metrics = await work(looks, ("a", 0.0), seconds=0.6)
    assert 2 <= len(looks.seen) <= 6, "0.05, 0.1, 0.2, … seconds"
    value = metrics.registry.get_sample_value
    failed = value("exsearch_operator_reconciles_total", {"result": "failed"})
    assert failed is not None
    assert failed >= 2
