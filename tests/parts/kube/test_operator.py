"""The operator on an API server: an agent made, served, changed, and kept so."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml
from kserve_player import KServe
from operator_hand import Hand
from operator_scene import (
    Agents,
    KubeflowWithRuns,
    conditions,
    promotion,
    spec,
    wait_for,
)

pytestmark = [pytest.mark.kube, pytest.mark.usefixtures("searchagents")]

MODE = "serving.kserve.io/deploymentMode"


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
