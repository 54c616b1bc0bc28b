"""The operator on an API server: an agent made, served, changed, kept so, and let go."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import kfp_server
import pytest
import pytest_asyncio
import yaml
from kserve_player import KServe
from kube_api.cluster import Cluster
from kubernetes import client
from operator_scene import (
    GROUP,
    Agents,
    KubeflowWithRuns,
    Prometheus,
    conditions,
    install,
    kubeflow_with_runs,
    prometheus,
    promotion,
    spec,
    wait_for,
)

from exsearch.operator.api import OperatorApi, configuration_of
from exsearch.operator.kfp import Pipelines
from exsearch.operator.look import Means, Outcome, Pace
from exsearch.operator.metrics import Metrics
from exsearch.operator.models import timestamp
from exsearch.operator.reconcile import Reconciler

pytestmark = pytest.mark.kube

MODE = "serving.kserve.io/deploymentMode"


@pytest.fixture(scope="module", autouse=True)
def installed(cluster: Cluster) -> None:
    """The cluster serves SearchAgents."""
    install(cluster)


@pytest.fixture
def kubeflow() -> Iterator[KubeflowWithRuns]:
    with kubeflow_with_runs() as state:
        yield state


@pytest.fixture
def figures() -> Iterator[Prometheus]:
    with prometheus() as state:
        yield state


@pytest.fixture
def agents(cluster: Cluster, namespace: str) -> Iterator[Agents]:
    found = Agents(cluster, namespace)
    yield found
    cluster.start()
    found.release()


class Hand:
    """The reconciler, turned by hand: a look happens when a test says so."""

    def __init__(self, reconciler: Reconciler, namespace: str) -> None:
        self.reconciler = reconciler
        self.namespace = namespace
        self.later = 0.0
        """Seconds by which the clock is ahead."""
        reconciler.means.clock = lambda: time.time() + self.later

    def restart(self) -> None:
        """As after a restart of the operator: nothing is remembered."""
        self.reconciler._memories.clear()

    async def look(self, name: str = "bot") -> Outcome:
        return await self.reconciler.reconcile(self.namespace, name)

    async def settle(self, name: str = "bot", most: int = 8) -> list[str]:
        """Look until nothing is left to do; all that was done."""
        done: list[str] = []
        for _ in range(most):
            outcome = await self.look(name)
            done += outcome.actions
            if not outcome.actions:
                return done
        raise AssertionError(f"it never settles: {done}")


@pytest_asyncio.fixture
async def hand(cluster: Cluster, namespace: str) -> AsyncIterator[Hand]:
    pace = Pace(kubeflow=0.0)
    configuration = configuration_of(str(cluster.kubeconfig()))
    async with (
        OperatorApi(configuration, patience=1.0) as api,
        httpx.AsyncClient() as http,
        Pipelines() as pipelines,
    ):
        yield Hand(Reconciler(Means(api, pipelines, http, Metrics(), pace)), namespace)


async def test_from_a_spec_to_service(
    hand: Hand, agents: Agents, kubeflow: KubeflowWithRuns
) -> None:
    agents.create("bot", spec(kubeflow.url))
    done = await hand.settle()
    assert [a for a in done if a.startswith(("made", "applied"))] == [
        "made PersistentVolumeClaim exsearch",
        "applied ConfigMap bot-run",
        "applied ServingRuntime bot",
        "applied InferenceService bot",
    ]
    status = agents.get("bot")["status"]
    assert status["phase"] == "Pending"
    assert [r["display_name"] for r in kubeflow.recurring.values()] == [f"{agents.namespace}-bot"]
    phases = []
    for state, index in (("RUNNING", "RUNNING"), ("RUNNING", "SUCCEEDED"), ("SUCCEEDED", "")):
        kubeflow.play_run(state, index=index)
        await hand.settle()
        phases.append(agents.get("bot")["status"]["phase"])
    assert phases == ["Indexing", "Training", "Pending"]
    with KServe(agents.cluster, agents.namespace):
        wait_for(lambda: agents.service("bot")["status"]["conditions"][1]["status"] == "True")
    await hand.settle()
    status = agents.get("bot")["status"]
    assert status["phase"] == "Serving"
    assert status["url"] == f"http://bot.{agents.namespace}.example.test"
    assert status["lastRun"]["state"] == "SUCCEEDED"
    assert agents.served("bot") == ("models/base", None)
    assert conditions(status) == {
        "IndexReady": ("True", "Indexed"),
        "Scheduled": ("True", "Scheduled"),
        "Trained": ("True", "RunSucceeded"),
        "Serving": ("True", "Ready"),
        "Canary": ("False", "NoCandidate"),
        "Degraded": ("False", "AsWanted"),
    }


async def test_an_agent_at_rest_costs_reads_only(
    hand: Hand, agents: Agents, kubeflow: KubeflowWithRuns
) -> None:
    agents.create("bot", spec(kubeflow.url))
    await hand.settle()
    version = agents.get("bot")["metadata"]["resourceVersion"]
    hand.restart()
    before = len(agents.cluster.requests)
    assert (await hand.look()).actions == ()
    verbs = sorted(r.verb for r in agents.cluster.requests[before:] if r.user == "admin")
    assert verbs == ["get"] * 5, "the agent, its settings, runtime, service and claim"
    assert agents.get("bot")["metadata"]["resourceVersion"] == version


OTHER_MODEL = {"spec": {"predictor": {"model": {"storageUri": "pvc://exsearch/other"}}}}
SHARE = {"spec": {"predictor": {"canaryTrafficPercent": 50}}}
MEDDLED: list[tuple[str, Any, str]] = [
    # kind, what a person does to it (None: deletes it), what repairs it
    ("configmaps", {"data": {"run.yaml": "seed: 7"}}, "applied ConfigMap bot-run"),
    ("inferenceservices", OTHER_MODEL, "applied InferenceService bot"),
    ("inferenceservices", SHARE, "applied InferenceService bot"),
    ("servingruntimes", {"spec": {"multiModel": True}}, "applied ServingRuntime bot"),
    ("configmaps", None, "applied ConfigMap bot-run"),
    ("inferenceservices", None, "applied InferenceService bot"),
    ("servingruntimes", None, "applied ServingRuntime bot"),
]


@pytest.mark.parametrize(
    ("plural", "change", "repair"),
    MEDDLED,
    ids=[f"{plural} {'edited' if change else 'deleted'}" for plural, change, _ in MEDDLED],
)
async def test_drift_is_repaired_and_told(
    hand: Hand, agents: Agents, kubeflow: KubeflowWithRuns,
    plural: str, change: Any, repair: str,
) -> None:  # fmt: skip
    agents.create("bot", spec(kubeflow.url))
    await hand.settle()
    agents.meddle(plural, change)
    assert repair in await hand.settle()
    assert agents.events("bot").count("DriftRepaired") == 1
    assert agents.served("bot") == ("models/base", None)


async def test_drift_is_repaired_after_a_restart(
    hand: Hand, agents: Agents, kubeflow: KubeflowWithRuns
) -> None:
    agents.create("bot", spec(kubeflow.url))
    await hand.settle()
    hand.restart()
    agents.meddle("configmaps", {"data": {"run.yaml": "seed: 7"}})
    agents.meddle("servingruntimes", None)
    assert await hand.settle() == ["applied ConfigMap bot-run", "applied ServingRuntime bot"]


async def test_a_schedule_deleted_or_disabled_by_hand_comes_back(
    hand: Hand, agents: Agents, kubeflow: KubeflowWithRuns
) -> None:
    agents.create("bot", spec(kubeflow.url))
    await hand.settle()
    kubeflow.recurring.clear()
    await hand.settle()
    (made,) = kubeflow.recurring.values()
    assert agents.get("bot")["status"]["recurringRun"]["id"] == made["recurring_run_id"]
    made["status"] = "DISABLED"
    await hand.settle()
    (made,) = kubeflow.recurring.values()
    assert made["status"] == "ENABLED"


async def test_an_edited_spec_reaches_settings_service_and_schedule(
    hand: Hand, agents: Agents, kubeflow: KubeflowWithRuns
) -> None:
    agents.create("bot", spec(kubeflow.url))
    await hand.settle()
    (first,) = kubeflow.recurring
    pods = agents.service("bot")["spec"]["predictor"]["annotations"]["exsearch.dev/settings"]
    agents.patch("bot", {"spec": {"agent": {"max_steps": 3}, "model": {"path": "s3://b/base"}}})
    await hand.settle()
    settings = yaml.safe_load(agents.config_map("bot-run").data["run.yaml"])
    assert settings["agent"]["max_steps"] == 3
    assert settings["cluster"]["deploy"]["agent"] == "bot"
    (second,) = kubeflow.recurring.values()
    assert second["recurring_run_id"] != first
    sent = json.loads(second["runtime_config"]["parameters"]["config"])
    assert sent["agent"]["max_steps"] == 3
    predictor = agents.service("bot")["spec"]["predictor"]
    assert predictor["model"]["storageUri"] == "s3://b/base"
    assert predictor["annotations"]["exsearch.dev/settings"] != pods, "the pods are replaced"
    status = agents.get("bot")
    assert status["status"]["observedGeneration"] == status["metadata"]["generation"]


async def test_suspended_and_resumed(
    hand: Hand, agents: Agents, kubeflow: KubeflowWithRuns
) -> None:
    agents.create("bot", spec(kubeflow.url))
    await hand.settle()
    for suspend, state, phase in ((True, "DISABLED", "Suspended"), (False, "ENABLED", "Pending")):
        agents.patch("bot", {"spec": {"suspend": suspend}})
        await hand.settle()
        (recurring,) = kubeflow.recurring.values()
        assert (recurring["status"], agents.get("bot")["status"]["phase"]) == (state, phase)
    assert {"Suspended", "Resumed"} <= set(agents.events("bot"))
    assert kubeflow.most_enabled == 1


async def test_without_a_canary_a_promotion_is_served_at_once(
    hand: Hand, agents: Agents, kubeflow: KubeflowWithRuns
) -> None:
    agents.create("bot", spec(kubeflow.url))
    await hand.settle()
    for name in ("one", "two"):
        agents.annotate("bot", promotion=json.dumps(promotion(name)))
        await hand.settle()
        assert agents.served("bot") == (f"runs/{name}/model", None)
    agent = agents.get("bot")
    assert "exsearch.dev/promotion" not in agent["metadata"]["annotations"]
    assert agent["status"]["champion"]["digest"] == "digest-two"
    assert [p["digest"] for p in agent["status"]["history"]] == ["digest-one"]
    assert agents.service("bot")["metadata"]["annotations"]["exsearch.dev/model-digest"] == (
        "digest-two"
    )
    agents.annotate("bot", promotion=json.dumps(promotion("two")))
    await hand.settle()
    assert agents.events("bot").count("Promoted") == 2, "the same promotion again is no promotion"


async def test_rollbacks_go_back_one_by_one_and_runs_are_told(
    hand: Hand, agents: Agents, kubeflow: KubeflowWithRuns
) -> None:
    agents.create("bot", spec(kubeflow.url))
    for name in ("one", "two"):
        agents.annotate("bot", promotion=json.dumps(promotion(name)))
        await hand.settle()
    went = []
    for reason in ("worse on dates", "still worse"):
        agents.annotate("bot", rollback=reason)
        await hand.settle()
        went.append(agents.served("bot")[0])
    assert went == ["runs/one/model", "models/base"]
    agent = agents.get("bot")
    assert "champion" not in agent["status"]
    told = {p["digest"]: p["withdrawn"] for p in agent["status"]["history"] if "withdrawn" in p}
    assert told == {"digest-two": "worse on dates", "digest-one": "still worse"}
    assert not {k for k in agent["metadata"]["annotations"] if k.startswith("exsearch.dev/")}
    (recurring,) = kubeflow.recurring.values()
    sent = json.loads(recurring["runtime_config"]["parameters"]["config"])
    assert sent["cluster"]["deploy"]["withdrawn"] == ["digest-one", "digest-two"]
    agents.annotate("bot", promotion=json.dumps(promotion("two")))
    await hand.settle()
    assert agents.served("bot")[0] == "models/base", "what was withdrawn stays so"


async def test_a_pinned_model_is_served_whatever_is_promoted(
    hand: Hand, agents: Agents, kubeflow: KubeflowWithRuns
) -> None:
    agents.create("bot", spec(kubeflow.url, pinned="/mnt/exsearch/models/old"))
    await hand.settle()
    agents.annotate("bot", promotion=json.dumps(promotion("one")))
    await hand.settle()
    status = agents.get("bot")["status"]
    assert agents.served("bot")[0] == "models/old"
    assert status["candidate"]["digest"] == "digest-one"
    assert conditions(status)["Canary"] == ("False", "Pinned")
    agents.patch("bot", {"spec": {"pinned": ""}})
    await hand.settle()
    assert agents.served("bot")[0] == "runs/one/model"
    assert agents.get("bot")["status"]["champion"]["digest"] == "digest-one"


def on_trial(url: str, figures: Prometheus, **more: Any) -> dict[str, Any]:
    budget = {"percent": 10, "minutes": 30.0, "min_requests": 50, "prometheus": figures.url}
    return spec(url, canary={**budget, **more})


async def begin_canary(
    hand: Hand, agents: Agents, url: str, figures: Prometheus, mode: str = "Knative", **more: Any
) -> None:
    """One model in service, a second one promoted, its pods ready."""
    agents.create("bot", on_trial(url, figures, **more), {MODE: mode})
    await hand.settle()
    agents.settled("bot")
    agents.annotate("bot", promotion=json.dumps(promotion("one")))
    await hand.settle()
    agents.settled("bot")
    agents.annotate("bot", promote="now")
    await hand.settle()
    agents.settled("bot")
    agents.annotate("bot", promotion=json.dumps(promotion("two")))
    await hand.settle()
    agents.settled("bot")


async def test_a_canary_within_its_budget_becomes_champion(
    hand: Hand, agents: Agents, kubeflow: KubeflowWithRuns, figures: Prometheus
) -> None:
    with KServe(agents.cluster, agents.namespace):
        await begin_canary(hand, agents, kubeflow.url, figures)
        assert agents.served("bot") == ("runs/two/model", 10)
        status = agents.get("bot")["status"]
        assert (status["champion"]["digest"], status["candidate"]["digest"]) == (
            "digest-one", "digest-two",
        )  # fmt: skip
        figures.requests, hand.later = 49, 31 * 60
        await hand.look()
        assert agents.served("bot") == ("runs/two/model", 10), "it waits for its requests"
        assert all('digest="digest-two"' in query for query in figures.asked[-4:])
        figures.requests = 50
        await hand.settle()
    assert agents.served("bot") == ("runs/two/model", None)
    status = agents.get("bot")["status"]
    assert status["champion"]["digest"] == "digest-two"
    assert "candidate" not in status
    assert conditions(status)["Canary"] == ("False", "NoCandidate")
    assert agents.events("bot").count("CanaryStarted") == 2


@pytest.mark.parametrize(
    ("errors", "latency"), [(9.0, 1.0), (0.0, 21.0)], ids=["errors", "latency"]
)
async def test_a_canary_out_of_its_budget_is_rolled_back(
    hand: Hand, agents: Agents, kubeflow: KubeflowWithRuns, figures: Prometheus,
    errors: float, latency: float,
) -> None:  # fmt: skip
    with KServe(agents.cluster, agents.namespace):
        await begin_canary(hand, agents, kubeflow.url, figures)
        figures.requests, figures.errors, figures.latency = 60, errors, latency
        await hand.look()
        assert agents.served("bot") == ("runs/one/model", 0), "its predecessor takes all at once"
        agents.settled("bot")
        await hand.settle()
        assert agents.served("bot") == ("runs/one/model", None)
    status = agents.get("bot")["status"]
    assert status["champion"]["digest"] == "digest-one"
    assert status["history"][0]["digest"] == "digest-two"
    assert "budget" in status["history"][0]["withdrawn"]
    assert agents.events("bot").count("RolledBack") == 1
    text = hand.reconciler.means.metrics.text().decode()
    assert 'exsearch_operator_transitions_total{transition="rolled_back"} 1.0' in text


async def test_a_candidate_that_prometheus_does_not_know_is_neither_promoted_nor_withdrawn(
    hand: Hand, agents: Agents, kubeflow: KubeflowWithRuns, figures: Prometheus
) -> None:
    """In Standard mode the pods before it may be what KServe calls ready."""
    with KServe(agents.cluster, agents.namespace):
        await begin_canary(hand, agents, kubeflow.url, figures, mode="Standard", min_requests=0)
        figures.pods, hand.later = 0.0, 24 * 3600
        await hand.settle()
        status = agents.get("bot")["status"]
        assert status["candidate"]["digest"] == "digest-two"
        (canary,) = [c for c in status["conditions"] if c["type"] == "Canary"]
        assert "is it scraped" in canary["message"]
        figures.pods = 1.0
        await hand.settle()
        assert agents.get("bot")["status"]["champion"]["digest"] == "digest-two"


async def test_a_canary_whose_pods_never_get_ready_is_withdrawn(
    hand: Hand, agents: Agents, kubeflow: KubeflowWithRuns, figures: Prometheus
) -> None:
    with KServe(agents.cluster, agents.namespace) as kserve:
        await begin_canary(hand, agents, kubeflow.url, figures, ready_minutes=20.0)
        agents.annotate("bot", promote="now")
        await hand.settle()
        agents.settled("bot")
        kserve.broken.add("pvc://exsearch/runs/three/model")
        agents.annotate("bot", promotion=json.dumps(promotion("three")))
        await hand.settle()
        wait_for(lambda: agents.service("bot")["status"]["conditions"][1]["status"] == "False")
        hand.later = 19 * 60
        await hand.look()
        assert agents.served("bot") == ("runs/three/model", 10), "its time is not over"
        hand.later = 21 * 60
        await hand.look()
        assert agents.served("bot") == ("runs/two/model", 0)
    withdrawn = agents.get("bot")["status"]["history"][0]
    assert withdrawn["digest"] == "digest-three"
    assert withdrawn["withdrawn"] == "its pods were not ready within 20 minutes"


async def test_pods_that_a_change_replaces_have_their_time_anew(
    hand: Hand, agents: Agents, kubeflow: KubeflowWithRuns, figures: Prometheus
) -> None:
    with KServe(agents.cluster, agents.namespace) as kserve:
        await begin_canary(hand, agents, kubeflow.url, figures, ready_minutes=20.0)
        begun = {"since": timestamp(time.time() - 3600)}
        agents.cluster.custom.patch_namespaced_custom_object_status(
            *GROUP, agents.namespace, "searchagents", "bot", {"status": {"candidate": begun}}
        )
        kserve.broken.add("pvc://exsearch/runs/two/model")
        agents.patch("bot", {"spec": {"serving": {"concurrency": 3}}})
        await hand.settle()
        wait_for(lambda: agents.service("bot")["status"]["conditions"][1]["status"] == "False")
        await hand.look()
        assert agents.served("bot") == ("runs/two/model", 10), "an hour on trial, a moment unready"


async def test_without_figures_nothing_is_promoted_and_nothing_withdrawn(
    hand: Hand, agents: Agents, kubeflow: KubeflowWithRuns, figures: Prometheus
) -> None:
    with KServe(agents.cluster, agents.namespace):
        await begin_canary(hand, agents, kubeflow.url, figures)
        figures.away, hand.later = True, 24 * 3600
        await hand.settle()
        assert conditions(agents.get("bot")["status"])["Canary"] == ("Unknown", "NoFigures")
        assert agents.served("bot") == ("runs/two/model", 10)
        figures.away, figures.requests = False, 100
        await hand.settle()
        assert agents.get("bot")["status"]["champion"]["digest"] == "digest-two"


async def test_a_rollback_during_a_canary_ends_the_canary_alone(
    hand: Hand, agents: Agents, kubeflow: KubeflowWithRuns, figures: Prometheus
) -> None:
    with KServe(agents.cluster, agents.namespace):
        await begin_canary(hand, agents, kubeflow.url, figures)
        agents.annotate("bot", rollback="it is rude")
        await hand.look()
        assert agents.served("bot") == ("runs/one/model", 0)
        assert agents.get("bot")["status"]["champion"]["digest"] == "digest-one"


async def test_where_traffic_is_not_split_the_budget_is_watched_all_the_same(
    hand: Hand, agents: Agents, kubeflow: KubeflowWithRuns, figures: Prometheus
) -> None:
    with KServe(agents.cluster, agents.namespace):
        await begin_canary(hand, agents, kubeflow.url, figures, mode="Standard")
        assert agents.served("bot") == ("runs/two/model", None)
        figures.requests, figures.errors = 60, 60
        await hand.settle()
        assert all('digest="digest-two"' in query for query in figures.asked[-4:])
    assert agents.served("bot") == ("runs/one/model", None)


@pytest.mark.parametrize("on_delete", ["Retain", "Delete"])
async def test_a_deleted_agent_leaves_what_it_should(
    hand: Hand, agents: Agents, kubeflow: KubeflowWithRuns, on_delete: str
) -> None:
    agents.create("bot", spec(kubeflow.url, on_delete=on_delete))
    await hand.settle()
    agents.delete("bot")
    assert agents.get("bot")["metadata"]["deletionTimestamp"]
    await hand.look()
    assert not kubeflow.recurring
    with pytest.raises(client.ApiException):
        agents.get("bot")
    if agents.cluster.collects_garbage:
        wait_for(lambda: not agents.parts())
        claims = agents.cluster.core.list_namespaced_persistent_volume_claim
        left = 1 if on_delete == "Retain" else 0
        wait_for(lambda: len(claims(agents.namespace).items) == left)
    assert (await hand.look()).again is None


async def test_a_claim_of_someone_else_is_used_and_never_deleted(
    hand: Hand, agents: Agents, kubeflow: KubeflowWithRuns
) -> None:
    theirs = {
        "metadata": {"name": "exsearch"},
        "spec": {
            "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}},
        },
    }  # fmt: skip
    agents.cluster.core.create_namespaced_persistent_volume_claim(agents.namespace, theirs)
    agents.create("bot", spec(kubeflow.url, on_delete="Delete"))
    await hand.settle()
    (found,) = agents.cluster.core.list_namespaced_persistent_volume_claim(agents.namespace).items
    assert found.metadata.owner_references is None


async def test_whether_the_claim_goes_along_can_be_changed(
    hand: Hand, agents: Agents, kubeflow: KubeflowWithRuns
) -> None:
    agents.create("bot", spec(kubeflow.url))
    await hand.settle()
    owners = []
    for on_delete in ("Delete", "Retain"):
        agents.patch("bot", {"spec": {"on_delete": on_delete}})
        await hand.settle()
        found: Any = agents.cluster.core.read_namespaced_persistent_volume_claim(
            "exsearch", agents.namespace
        )
        owners.append([owner.name for owner in found.metadata.owner_references or []])
    assert owners == [["bot"], []]


async def test_kubeflow_away_is_told_and_what_serves_goes_on(
    hand: Hand, agents: Agents, kubeflow: KubeflowWithRuns
) -> None:
    agents.create("bot", spec("http://127.0.0.1:9"))
    await hand.settle()
    status = agents.get("bot")["status"]
    assert conditions(status)["Scheduled"] == ("Unknown", "KubeflowAway")
    assert conditions(status)["Degraded"] == ("False", "AsWanted")
    assert agents.served("bot") == ("models/base", None)
    agents.delete("bot")
    await hand.look()
    with pytest.raises(client.ApiException):
        agents.get("bot")


async def test_an_agent_whose_schedule_cannot_be_removed_stays_and_says_so(
    hand: Hand, agents: Agents, kubeflow: KubeflowWithRuns
) -> None:
    agents.create("bot", spec(kubeflow.url))
    await hand.settle()

    def refuse(method: str, path: str) -> None:
        raise kfp_server.Refused(500, "out of order")

    kubeflow.before = refuse
    agents.delete("bot")
    outcome = await hand.look()
    assert outcome.trouble is not None
    assert agents.get("bot")["status"]["phase"] == "Deleting"
    kubeflow.before = lambda method, path: None
    await hand.look()
    with pytest.raises(client.ApiException):
        agents.get("bot")


async def test_a_spec_that_cannot_be_read_is_told_and_touches_nothing(
    hand: Hand, agents: Agents, kubeflow: KubeflowWithRuns
) -> None:
    agents.create("bot", spec(kubeflow.url))
    await hand.settle()
    # What the API server lets through: no pod can mount it.
    agents.patch("bot", {"spec": {"model": {"path": "/home/me/model"}}})
    outcome = await hand.look()
    assert outcome.trouble is not None
    status = agents.get("bot")["status"]
    assert status["phase"] == "Degraded"
    assert conditions(status)["Degraded"] == ("True", "InvalidSpec")
    assert agents.served("bot") == ("models/base", None)
    assert (await hand.look()).actions == (), "told once"
    agents.patch("bot", {"spec": {"model": {"path": "/mnt/exsearch/models/base"}}})
    await hand.settle()
    assert conditions(agents.get("bot")["status"])["Degraded"] == ("False", "AsWanted")


async def test_an_object_that_belongs_to_another_is_told(
    hand: Hand, agents: Agents, kubeflow: KubeflowWithRuns
) -> None:
    owner = {
        "apiVersion": "v1", "kind": "ConfigMap", "name": "other", "uid": "u", "controller": True,
    }  # fmt: skip
    made: Any = agents.cluster.core.create_namespaced_config_map(
        agents.namespace, {"metadata": {"name": "other"}}
    )
    body = {
        "metadata": {"name": "bot-run", "ownerReferences": [{**owner, "uid": made.metadata.uid}]}
    }
    agents.cluster.core.create_namespaced_config_map(agents.namespace, body)
    agents.create("bot", spec(kubeflow.url))
    outcome = await hand.look()
    assert outcome.trouble is not None
    assert conditions(agents.get("bot")["status"])["Degraded"] == ("True", "Refused")
