"""`exsearch agent`: it tells what serves, ends a canary, takes service and record back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from kube_api.cluster import Cluster
from typer.testing import CliRunner

from exsearch.agent.model_files import model_digest
from exsearch.cli import common
from exsearch.cli.agent import app
from exsearch.em.champion import Champion, Promotion, champion_path, read_champion
from exsearch.errors import InputError
from exsearch.storage import write_json

pytestmark = pytest.mark.kube

API = ("serving.kserve.io", "v1beta1")
STATUS: dict[str, Any] = {
    "url": "http://exsearch.example.test",
    "deploymentMode": "Knative",
    "conditions": [
        {"type": "Ready", "status": "False"},
        {"type": "PredictorReady", "status": "False", "reason": "RevisionFailed"},
    ],
    "components": {
        "predictor": {
            "traffic": [
                {"revisionName": "exsearch-2", "percent": 10, "latestRevision": True},
                {"revisionName": "exsearch-1", "percent": 90, "tag": "prev"},
            ]
        }
    },
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A volume with three promoted models and the record of them."""
    made: list[Promotion] = []
    for number, name in enumerate(("first", "second", "third")):
        folder = tmp_path / "runs" / name
        folder.mkdir(parents=True)
        (folder / "config.json").write_text("{}")
        (folder / "tokenizer.json").write_text("{}")
        header = json.dumps({"__metadata__": {"name": name}}).encode()
        weights = len(header).to_bytes(8, "little") + header
        (folder / "model.safetensors").write_bytes(weights)
        made.append(
            Promotion(
                model=str(folder),
                digest=model_digest(str(folder)),
                run=f"run-{name}",
                promoted=1.7e9 + number,
                reason="better",
                metrics={"em": 0.5},
            )
        )
    first, second, third = made
    record = Champion(current=third, history=(second, first))
    write_json(champion_path(str(tmp_path)), record.model_dump(mode="json"))
    return tmp_path


class Agent:
    """`exsearch agent` in one namespace, with one volume."""

    def __init__(self, cluster: Cluster, namespace: str, root: Path) -> None:
        self.cluster, self.namespace = cluster, namespace
        storage = f"cluster.storage.mount={root}", f"cluster.storage.root={root}"
        self._settings = [f"cluster.namespace={namespace}", *storage]

    def run(self, command: str, *more: str) -> Any:
        flags = [flag for setting in self._settings for flag in ("--set", setting)]
        done = CliRunner().invoke(app, [command, *flags, *more])
        if done.exception is not None:
            raise done.exception
        return done

    def make(self, mode: str, canary: int | None = None) -> None:
        predictor: dict[str, Any] = {
            "model": {
                "modelFormat": {"name": "exsearch"},
                "storageUri": "pvc://exsearch/runs/third",
            }
        }
        if canary is not None:
            predictor["canaryTrafficPercent"] = canary
        body = {
            "apiVersion": "serving.kserve.io/v1beta1",
            "kind": "InferenceService",
            "metadata": {
                "name": "exsearch",
                "annotations": {"serving.kserve.io/deploymentMode": mode},
            },
            "spec": {"predictor": predictor},
        }
        self.cluster.custom.create_namespaced_custom_object(
            *API, self.namespace, "inferenceservices", body
        )

    def predictor(self) -> dict[str, Any]:
        found: Any = self.cluster.custom.get_namespaced_custom_object(
            *API, self.namespace, "inferenceservices", "exsearch"
        )
        return found["spec"]["predictor"]

    def served(self) -> tuple[str, int | None]:
        """Its storageUri and the canary's share."""
        predictor = self.predictor()
        return predictor["model"]["storageUri"], predictor.get("canaryTrafficPercent")


@pytest.fixture
def agent(cluster: Cluster, namespace: str, root: Path, monkeypatch: pytest.MonkeyPatch) -> Agent:
    monkeypatch.setenv("KUBECONFIG", str(cluster.kubeconfig()))
    monkeypatch.setattr(common.console, "width", 300)
    return Agent(cluster, namespace, root)


def champion(root: Path) -> str:
    record = read_champion(str(root))
    assert record is not None
    return Path(record.current.model).name


@pytest.mark.parametrize(
    ("mode", "canary", "share"),
    [("Standard", None, None), ("Knative", None, None), ("Knative", 10, 0)],
    ids=["standard", "knative", "during a canary"],
)
def test_a_rollback_is_one_command(
    agent: Agent, root: Path, mode: str, canary: int | None, share: int | None
) -> None:
    agent.make(mode, canary)
    done = agent.run("rollback", "--reason", "worse on dates", "--json")
    assert agent.served() == ("pvc://exsearch/runs/second", share)
    assert champion(root) == "second"
    told = json.loads(done.stdout)
    assert told["champion"]["model"] == f"{root}/runs/second"
    assert told["withdrawn"] == f"{root}/runs/third"
    assert ("agent promote" in done.stderr) == (share == 0)


def test_a_dry_run_changes_nothing_and_says_what_it_would(agent: Agent, root: Path) -> None:
    agent.make("Standard")
    before = agent.served(), champion(root)
    done = agent.run("rollback", "--dry-run")
    assert (agent.served(), champion(root)) == before
    assert '"storageUri": "pvc://exsearch/runs/second"' in done.stderr
    assert "would be the champion again" in done.stderr


def test_a_rollback_whose_patch_fails_may_be_run_again(agent: Agent, root: Path) -> None:
    agent.make("Standard")
    agent.cluster.fail(lambda request: request.verb == "patch", 403, times=1)
    with pytest.raises(InputError):
        agent.run("rollback")
    assert champion(root) == "third", "the record tells of no rollback that did not happen"
    agent.run("rollback")
    assert champion(root) == "second"
    assert agent.served()[0] == "pvc://exsearch/runs/second"


def test_without_an_inference_service_the_record_alone_changes(agent: Agent, root: Path) -> None:
    done = agent.run("rollback")
    assert "there is no InferenceService exsearch" in done.stderr
    assert champion(root) == "second"


def test_without_a_cluster_nothing_is_asked(
    agent: Agent, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", "/nowhere")
    nothing = ("--set", "cluster.deploy.name=")
    agent.run("rollback", *nothing)
    assert champion(root) == "second"
    assert json.loads(agent.run("status", "--json", *nothing).stdout)["service"] is None
    with pytest.raises(InputError, match=r"cluster\.deploy\.name is empty"):
        agent.run("promote", *nothing)


def test_promote_ends_a_canary_and_heals_what_was_applied_anew(agent: Agent) -> None:
    agent.make("Knative", 10)
    agent.run("promote")
    assert agent.served() == ("pvc://exsearch/runs/third", None)
    agent.cluster.custom.patch_namespaced_custom_object(
        *API, agent.namespace, "inferenceservices", "exsearch",
        {"spec": {"predictor": {"model": {"storageUri": "pvc://exsearch/models/base"}}}},
    )  # fmt: skip
    agent.run("promote")
    assert agent.served() == ("pvc://exsearch/runs/third", None)


def test_status_tells_the_record_beside_what_serves(agent: Agent, root: Path) -> None:
    agent.make("Knative", 10)
    agent.cluster.custom.patch_namespaced_custom_object_status(
        *API, agent.namespace, "inferenceservices", "exsearch", {"status": STATUS}
    )
    told = json.loads(agent.run("status", "--json").stdout)
    assert told["champion"]["model"] == f"{root}/runs/third"
    assert [Path(p["model"]).name for p in told["history"]] == ["second", "first"]
    service = told["service"]
    assert (service["ready"], service["why"]) == (False, "PredictorReady: RevisionFailed")
    assert service["url"] == STATUS["url"]
    assert [(t["revision"], t["percent"]) for t in service["traffic"]] == [
        ("exsearch-2", 10),
        ("exsearch-1", 90),
    ]
    page = agent.run("status").stderr
    for words in (f"{root}/runs/first", "not ready (PredictorReady", "90 %  exsearch-1 prev"):
        assert words in page


def test_nothing_promoted_yet_is_said(agent: Agent, root: Path) -> None:
    Path(champion_path(str(root))).unlink()
    assert "no model has been promoted yet" in agent.run("status").stderr
    for command in ("promote", "rollback"):
        with pytest.raises(InputError, match=r"champion\.json is not there"):
            agent.run(command)
