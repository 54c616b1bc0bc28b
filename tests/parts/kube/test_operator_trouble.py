"""The operator where an agent goes, and where something is in the way."""

from __future__ import annotations

from typing import Any

import kfp_server
import pytest
from kubernetes import client
from operator_hand import Hand
from operator_scene import (
    Agents,
    KubeflowWithRuns,
    conditions,
    spec,
    wait_for,
)

pytestmark = [pytest.mark.kube, pytest.mark.usefixtures("searchagents")]

MODE = "serving.kserve.io/deploymentMode"


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
