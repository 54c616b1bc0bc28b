"""The whole operator: watching, leading, killed anywhere, cut off, under its own account."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import kfp_server
import pytest
import yaml
from kserve_player import KServe
from kube_api.cluster import ROOT, Cluster
from kube_api.request import Recorded
from kubernetes import client
from operator_scene import (
    GROUP,
    Agents,
    KubeflowWithRuns,
    conditions,
    promotion,
    spec,
    wait_for,
)

from exsearch.operator.api import OperatorApi, configuration_of
from exsearch.operator.kfp import Pipelines
from exsearch.operator.leader import Terms
from exsearch.operator.look import Means, Pace
from exsearch.operator.main import Operator, Options
from exsearch.operator.metrics import Metrics
from exsearch.operator.reconcile import Reconciler

pytestmark = [pytest.mark.kube, pytest.mark.usefixtures("searchagents")]

TERMS = Terms(duration=2.0, renew=0.4)
PACE = Pace(pending=2.0, idle=5.0, kubeflow=1.0)


def operator(cluster: Cluster, namespace: str, identity: str, **more: Any) -> Operator:
    options = Options(
        namespaces=(namespace,), metrics_port=0, lease_namespace=namespace,
        terms=TERMS, pace=PACE, identity=identity,
    )  # fmt: skip
    return Operator(configuration_of(str(cluster.kubeconfig(**more))), options)


@asynccontextmanager
async def running(*operators: Operator) -> AsyncIterator[list[asyncio.Task[None]]]:
    tasks = [asyncio.create_task(one.run()) for one in operators]
    try:
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        for ended in await asyncio.gather(*tasks, return_exceptions=True):
            assert ended is None or isinstance(ended, asyncio.CancelledError), ended


async def until(check: Any, seconds: float = 40.0) -> Any:
    return await asyncio.to_thread(wait_for, check, seconds)


def phase(agents: Agents, name: str = "bot") -> str:
    return agents.get(name).get("status", {}).get("phase", "")


async def test_it_notices_what_happens_by_itself(
    cluster: Cluster, agents: Agents, kubeflow: KubeflowWithRuns
) -> None:
    namespace = agents.namespace
    one = operator(cluster, namespace, "one")
    with KServe(cluster, namespace):
        async with running(one):
            agents.create("bot", spec(kubeflow.url))
            await until(lambda: phase(agents) == "Serving")
            agents.meddle("configmaps", None)
            await until(lambda: agents.config_map("bot-run"))
            agents.annotate("bot", promotion=json.dumps(promotion("one")))
            await until(lambda: agents.served("bot")[0] == "runs/one/model")
            agents.delete("bot")
            await until(lambda: not cluster.collects_garbage or not agents.parts())
    assert not kubeflow.recurring
    assert cluster.custom.list_namespaced_custom_object(*GROUP, namespace, "searchagents")[
        "items"
    ] == []  # fmt: skip


async def test_two_operators_one_acts_and_the_other_takes_over(
    cluster: Cluster, agents: Agents, kubeflow: KubeflowWithRuns
) -> None:
    namespace = agents.namespace
    leases = client.CoordinationV1Api(cluster.client())

    def holder() -> str:
        found: Any = leases.read_namespaced_lease("exsearch-operator", namespace)
        return found.spec.holder_identity

    one, two = (operator(cluster, namespace, name) for name in ("one", "two"))
    async with running(one, two) as tasks:
        first = await until(holder)
        leading, standby = (one, two) if first == "one" else (two, one)
        agents.create("bot", spec(kubeflow.url))
        await until(lambda: phase(agents) == "Pending")
        assert _gauge(leading) == 1.0
        assert _gauge(standby) == 0.0
        assert "exsearch_operator_reconciles_total{" not in standby.metrics.text().decode()
        tasks[0 if first == "one" else 1].cancel()
        began = time.monotonic()
        await until(lambda: holder() not in ("", first))
        assert time.monotonic() - began < TERMS.duration, "the lease was released, not run out"
        agents.meddle("configmaps", None)
        await until(lambda: agents.config_map("bot-run"))
        tasks[0 if first == "one" else 1].cancel()
    assert holder() == ""


def _gauge(one: Operator) -> float:
    return one.metrics.registry.get_sample_value("exsearch_operator_leader") or 0.0


async def test_an_api_server_that_was_away_is_gone_on_with(
    cluster: Cluster, agents: Agents, kubeflow: KubeflowWithRuns
) -> None:
    async with running(operator(cluster, agents.namespace, "one")):
        agents.create("bot", spec(kubeflow.url))
        await until(lambda: phase(agents) == "Pending")
        cluster.stop()
        await asyncio.sleep(TERMS.duration + 2)
        cluster.start()
        agents.annotate("bot", promotion=json.dumps(promotion("one")))
        agents.meddle("servingruntimes", None)
        await until(lambda: agents.served("bot")[0] == "runs/one/model")
        await until(lambda: "servingruntimes" in agents.parts())


async def test_a_broken_agent_costs_the_others_nothing(
    cluster: Cluster, agents: Agents, kubeflow: KubeflowWithRuns
) -> None:
    one = operator(cluster, agents.namespace, "one")
    async with running(one):
        agents.create("bad", spec(kubeflow.url, model={"path": "/home/me/model"}))
        agents.create("bot", spec(kubeflow.url))
        await until(lambda: phase(agents) == "Pending")
        await until(lambda: phase(agents, "bad") == "Degraded")
        before = len(cluster.requests)
        await asyncio.sleep(3)
        about = [r for r in cluster.requests[before:] if r.name == "bad"]
    assert len(about) < 6, "no storm of retries"
    sample = one.metrics.registry.get_sample_value
    assert sample("exsearch_operator_agents", {"phase": "Degraded"}) in (None, 1.0)


# --- killed at every step


class Killed(BaseException):
    """The process ends here."""


class Mortal(OperatorApi):
    """An API whose client dies at its n-th request: before it is sent, or after the answer."""

    left = -1
    after = False

    async def _call(self, *args: Any, **more: Any) -> Any:
        self.left -= 1
        if self.left == 0 and not self.after:
            raise Killed
        answer = await super()._call(*args, **more)
        if self.left == 0:
            raise Killed
        return answer


async def tell_story(
    api: Mortal, agents: Agents, url: str, deaths: int, *, after: bool
) -> tuple[int, dict[str, Any]]:
    """An agent's life under an operator that dies at request `deaths` of each look.

    Returns:
        requests of the longest look, and what there is in the end.
    """
    longest = 0

    async def settle() -> None:
        nonlocal longest
        for number in range(12):
            api.left = deaths if number == 0 else -1
            api.after = after
            begun = api.left
            async with httpx.AsyncClient() as http, Pipelines() as pipelines:
                fresh = Reconciler(Means(api, pipelines, http, Metrics(), Pace(kubeflow=0.0)))
                try:
                    outcome = await fresh.reconcile(agents.namespace, "bot")
                except Killed:
                    continue
                longest = max(longest, begun - api.left)
                if not outcome.actions:
                    return
        raise AssertionError("it never settles")

    agents.create("bot", spec(url))
    await settle()
    for name in ("one", "two"):
        agents.annotate("bot", promotion=json.dumps(promotion(name)))
        await settle()
    agents.annotate("bot", rollback="worse")
    await settle()
    agent = agents.get("bot")
    found = {
        "served": agents.served("bot"),
        "champion": agent["status"]["champion"]["digest"],
        "history": [(p["digest"], p.get("withdrawn")) for p in agent["status"]["history"]],
        "conditions": conditions(agent["status"]),
        "events": agents.events("bot"),
        "requests": [k for k in agent["metadata"]["annotations"] if "exsearch.dev" in k],
        "parts": sorted(agents.parts()),
    }
    agents.delete("bot")
    for number in range(3):
        api.left = deaths if number == 0 else -1
        async with httpx.AsyncClient() as http, Pipelines() as pipelines:
            fresh = Reconciler(Means(api, pipelines, http, Metrics(), Pace(kubeflow=0.0)))
            try:
                await fresh.reconcile(agents.namespace, "bot")
            except Killed:
                continue
    return longest, found


@pytest.mark.parametrize("after", [False, True], ids=["before it is sent", "after its answer"])
async def test_killed_at_any_request_it_comes_to_the_same_end(
    cluster: Cluster, agents: Agents, kubeflow: KubeflowWithRuns, *, after: bool
) -> None:
    configuration = configuration_of(str(cluster.kubeconfig()))
    wanted: dict[str, Any] | None = None
    async with Mortal(configuration, patience=1.0) as api:
        deaths, longest = 1000, 2
        while deaths:
            used, found = await tell_story(api, agents, kubeflow.url, deaths, after=after)
            wanted = wanted or found
            assert found == wanted, f"killed at request {deaths} of {longest}"
            assert not kubeflow.recurring
            assert kubeflow.most_enabled == 1
            for event in cluster.core.list_namespaced_event(agents.namespace).items:
                cluster.core.delete_namespaced_event(event.metadata.name, agents.namespace)
            longest = used if deaths == 1000 else longest
            deaths = longest if deaths == 1000 else deaths - 1
    assert longest >= 12, "it was killed at every request of a look"
    assert wanted is not None
    assert wanted["served"] == ("runs/one/model", None)
    assert wanted["history"][0] == ("digest-two", "worse")
    assert wanted["events"].count("RolledBack") == 1


async def test_cut_off_at_any_request_kubeflow_has_one_schedule_in_the_end(
    cluster: Cluster, agents: Agents, kubeflow: KubeflowWithRuns
) -> None:
    """Made, then replaced; each of Kubeflow's requests fails once."""
    asked, fails_at = 0, 0

    def fail(method: str, path: str) -> None:
        nonlocal asked
        asked += 1
        if asked == fails_at:
            raise kfp_server.Refused(500, "out of order")

    kubeflow.before = fail
    configuration = configuration_of(str(cluster.kubeconfig()))
    async with (
        OperatorApi(configuration, patience=1.0) as api,
        httpx.AsyncClient() as http,
        Pipelines() as pipelines,
    ):
        longest = 1
        while fails_at <= longest:
            name = f"bot-{fails_at}"
            agents.create(name, spec(kubeflow.url))
            for seed in (0, 1):
                agents.patch(name, {"spec": {"seed": seed}})
                asked = 0
                for number in range(3):
                    asked += 1000 * number  # only the first look is cut off
                    fresh = Reconciler(Means(api, pipelines, http, Metrics(), Pace(kubeflow=0.0)))
                    await fresh.reconcile(agents.namespace, name)
                    longest = max(longest, asked % 1000) if not fails_at else longest
            (only,) = [
                r for r in kubeflow.recurring.values()
                if r["display_name"] == f"{agents.namespace}-{name}"
            ]  # fmt: skip
            status = agents.get(name)["status"]
            assert only["status"] == "ENABLED"
            assert status["recurringRun"]["id"] == only["recurring_run_id"]
            assert conditions(status)["Scheduled"] == ("True", "Scheduled")
            fails_at += 1
    assert longest > 5


# --- rights


def test_as_a_command_under_its_own_account_it_lacks_nothing_and_uses_all(
    cluster: Cluster, agents: Agents, kubeflow: KubeflowWithRuns, tmp_path: Path
) -> None:
    namespace = agents.namespace
    rules = install_account(cluster, namespace)
    kubeconfig = cluster.kubeconfig(f"{namespace}/exsearch-operator")
    before = len(cluster.requests)
    log = tmp_path / "log"
    command = [
        str(Path(sys.executable).with_name("exsearch")), "operator", "run",
        "--kubeconfig", str(kubeconfig), "--lease-namespace", namespace,
        "--metrics-port", "18081",
    ]  # fmt: skip
    with log.open("w") as out:
        process = subprocess.Popen(command, stderr=out, env={**os.environ, "KUBECONFIG": ""})
    try:
        with KServe(cluster, namespace):
            agents.create("bot", spec(kubeflow.url))
            wait_for(lambda: phase(agents) == "Serving" or process.poll() is not None, 60)
            assert process.poll() is None, log.read_text()
            agents.patch("bot", {"spec": {"on_delete": "Delete"}})
            wait_for(
                lambda: (
                    cluster.core.read_namespaced_persistent_volume_claim(
                        "exsearch", namespace
                    ).metadata.owner_references
                )  # type: ignore[union-attr]
            )
            text = httpx.get("http://127.0.0.1:18081/metrics").text
            assert 'exsearch_operator_agents{phase="Serving"} 1.0' in text
            assert httpx.get("http://127.0.0.1:18081/healthz").status_code == 200
            with pytest.raises(httpx.ConnectError):  # it listens on that address alone
                httpx.get("http://127.0.0.2:18081/healthz")
            agents.delete("bot")
            wait_for(lambda: not cluster.collects_garbage or not agents.parts())
            time.sleep(TERMS.renew)
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0, log.read_text()
    finally:
        process.kill()
        process.wait()
    user = f"system:serviceaccount:{namespace}:exsearch-operator"
    used = {granted(r) for r in cluster.requests[before:] if r.user == user}
    assert "may not" not in log.read_text(), log.read_text()
    # An apply that creates is recorded as `patch`, and refused where `create` is missing.
    applied = {(group, what, "create") for group, what, verb in used if verb == "patch"}
    # An admission plugin asks for this one, where it is on; no request shows it.
    unseen = {("exsearch.dev", "searchagents/finalizers", "update")}
    assert used | (applied & rules) == rules - unseen


def granted(request: Recorded) -> tuple[str, str, str]:
    resource = f"{request.resource}/{request.subresource}".rstrip("/")
    return request.group, resource, request.verb


def install_account(cluster: Cluster, namespace: str) -> set[tuple[str, str, str]]:
    """The operator's account with the rights of its manifests, in this namespace."""
    text = (ROOT / "manifests/operator/base/account.yaml").read_text()
    rbac = client.RbacAuthorizationV1Api(cluster.client())
    cluster.core.create_namespaced_service_account(
        namespace, {"metadata": {"name": "exsearch-operator"}}
    )
    rights: set[tuple[str, str, str]] = set()
    for item in yaml.safe_load_all(text):
        if item["kind"] not in ("ClusterRole", "Role"):
            continue
        name = f"{namespace}-{item['kind'].lower()}"
        rbac.create_cluster_role({"metadata": {"name": name}, "rules": item["rules"]})
        subject = {"kind": "ServiceAccount", "name": "exsearch-operator", "namespace": namespace}
        reference = {
            "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name,
        }  # fmt: skip
        body = {"metadata": {"name": name}, "subjects": [subject], "roleRef": reference}
        rbac.create_cluster_role_binding(body)
        for rule in item["rules"]:
            rights |= {
                (group, resource, verb)
                for group in rule["apiGroups"]
                for resource in rule["resources"]
                for verb in rule["verbs"]
            }
    return rights
