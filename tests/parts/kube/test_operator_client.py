"""What people and pipelines ask of a SearchAgent: annotations and one field, no more."""

from __future__ import annotations

import json

import pytest
from kube_api.cluster import Cluster
from operator_scene import GROUP, Agents, install, spec
from typer.testing import CliRunner

from exsearch.cli import common
from exsearch.cli.agent import app
from exsearch.config import load
from exsearch.em.champion import Promotion
from exsearch.errors import InputError
from exsearch.kube.deploy import hand_over

pytestmark = pytest.mark.kube

PROMOTED = Promotion(
    model="/mnt/exsearch/runs/a/model", digest="d1", run="a", promoted=1.0, reason="better",
    metrics={"em": 0.5},
)  # fmt: skip


@pytest.fixture
def agents(cluster: Cluster, namespace: str, monkeypatch: pytest.MonkeyPatch) -> Agents:
    install(cluster)
    monkeypatch.setenv("KUBECONFIG", str(cluster.kubeconfig()))
    monkeypatch.setattr(common.console, "width", 300)
    found = Agents(cluster, namespace)
    found.create("bot", spec("http://127.0.0.1:9"))
    return found


def run(agents: Agents, *arguments: str) -> str:
    done = CliRunner().invoke(app, [*arguments, "-n", agents.namespace])
    if done.exception is not None:
        raise done.exception
    return done.output


@pytest.mark.parametrize(
    ("command", "where", "value"),
    [
        (("promote",), ("metadata", "annotations", "exsearch.dev/promote"), "now"),
        (
            ("rollback", "--reason", "worse"),
            ("metadata", "annotations", "exsearch.dev/rollback"),
            "worse",
        ),
        (("pause",), ("spec", "suspend"), True),
        (("resume",), ("spec", "suspend"), False),
    ],
)
def test_a_request_is_a_change_of_the_resource(
    agents: Agents, command: tuple[str, ...], where: tuple[str, ...], value: object
) -> None:
    before = agents.get("bot")
    told = run(agents, command[0], "bot", *command[1:], "--dry-run")
    assert "would patch" in told
    assert agents.get("bot") == before
    run(agents, command[0], "bot", *command[1:])
    found = agents.get("bot")
    for key in where:
        found = found[key]
    assert found == value
    with pytest.raises(InputError, match="there is no SearchAgent nobody"):
        run(agents, command[0], "nobody", *command[1:])


def test_status_tells_the_agents_own(agents: Agents) -> None:
    status = {
        "phase": "Serving",
        "url": "http://bot.example.test",
        "champion": {"model": "/mnt/m", "digest": "d", "metrics": {"em": 0.5}},
        "history": [
            {"model": "/mnt/l", "digest": "c", "promoted": "2026-01-01T00:00:00Z",
             "withdrawn": "rude"}
        ],
    }  # fmt: skip
    agents.cluster.custom.patch_namespaced_custom_object_status(
        *GROUP, agents.namespace, "searchagents", "bot", {"status": status}
    )
    assert json.loads(run(agents, "status", "bot", "--json")) == status
    page = run(agents, "status", "bot")
    for words in (": Serving", "/mnt/m d em 0.500", "withdrawn: rude"):
        assert words in page


def test_a_promotion_is_handed_over(agents: Agents) -> None:
    where = [f"cluster.namespace={agents.namespace}", "cluster.deploy.agent=bot"]
    cluster = load(None, where).cluster
    told: list[str] = []
    for _ in range(2):
        hand_over(PROMOTED, cluster, told.append)
    text = agents.get("bot")["metadata"]["annotations"]["exsearch.dev/promotion"]
    assert Promotion.model_validate_json(text) == PROMOTED
    assert "bot takes /mnt/exsearch/runs/a/model over" in told[0]
    nobody = load(None, [where[0], "cluster.deploy.agent=nobody"]).cluster
    with pytest.raises(InputError, match="there is no SearchAgent nobody"):
        hand_over(PROMOTED, nobody, told.append)
    elsewhere = PROMOTED.model_copy(update={"model": "/home/me/model"})
    with pytest.raises(InputError, match="no volume that a serving pod can mount"):
        hand_over(elsewhere, cluster, told.append)
