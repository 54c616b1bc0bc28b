"""The operator and a new model on trial."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from kserve_player import KServe
from operator_hand import Hand
from operator_scene import (
    GROUP,
    Agents,
    KubeflowWithRuns,
    Prometheus,
    conditions,
    promotion,
    spec,
    wait_for,
)

from exsearch.operator.models import timestamp

pytestmark = [pytest.mark.kube, pytest.mark.usefixtures("searchagents")]

MODE = "serving.kserve.io/deploymentMode"


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
