"""The operator's objects beside the overlays' own: the same agent, whoever made it."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from manifest_checks import MANIFESTS, Object, build, named

from exsearch.operator.agent import Agent, Served, read_agent
from exsearch.operator.desired import claim, desired

pytestmark = pytest.mark.manifests

MODE = "serving.kserve.io/deploymentMode"


def agent_of(overlay: str) -> Agent:
    """The overlay's run.yaml as a SearchAgent."""
    spec = yaml.safe_load((MANIFESTS / "overlays" / overlay / "run.yaml").read_text())
    spec.pop("run")
    meta = {"name": "exsearch", "namespace": "exsearch", "uid": "u"}
    return read_agent({"metadata": meta, "spec": spec})


def objects(agent: Agent) -> dict[str, Object]:
    return {o["kind"]: o for o in desired(agent, Served(agent.run.model.path), ())}


def plain(item: Object) -> Any:
    """An object's spec, without what an overlay decides by hand: sizes, autoscaling, and the
    script that brings the index, which the operator's settings name."""
    spec = yaml.safe_load(yaml.safe_dump(item["spec"]))
    for container in spec.get("containers", []):
        container["resources"] = sorted(container["resources"]["limits"])
        container["args"] = [a for a in container["args"] if "retrieval.checkpoint" not in a]
    predictor = spec.get("predictor", {})
    for name in ("autoScaling", "maxReplicas", "annotations"):
        predictor.pop(name, None)
    for container in predictor.get("initContainers", []):
        if container["name"] == "fetch-index":
            container.pop("args")
            container.pop("env")
    return spec


@pytest.mark.parametrize("overlay", ["laptop", "gpu", "object-store"])
@pytest.mark.parametrize("kind", ["ServingRuntime", "InferenceService"])
def test_they_are_the_overlays_objects(overlay: str, kind: str) -> None:
    theirs = named(build(overlay), kind, "exsearch")
    assert plain(objects(agent_of(overlay))[kind]) == plain(theirs)


def test_the_serving_pod_has_sizes_of_its_own() -> None:
    meta = {"name": "bot", "namespace": "team", "uid": "u"}
    model = {"path": "/mnt/exsearch/models/base"}
    spec: Object = {
        "model": model,
        "cluster": {
            "gpu_selector": {"gpu": "small"},
            "rollout": {"cpu": "9", "memory": "90Gi", "gpus": 8},
            "index": {"cpu": "7", "memory": "70Gi", "gpus": 1},
        },
    }

    def sizes() -> list[Object]:
        made = objects(read_agent({"metadata": meta, "spec": spec}))["ServingRuntime"]["spec"]
        return [
            {
                key: c["resources"]["requests"].get(key)
                for key in ("cpu", "memory", "nvidia.com/gpu")
            }
            for c in made["containers"]
        ]

    predictor, retriever = sizes()
    assert predictor == {"cpu": "9", "memory": "90Gi", "nvidia.com/gpu": "8"}
    assert retriever == {"cpu": "7", "memory": "70Gi", "nvidia.com/gpu": None}
    spec["cluster"]["predictor"] = {"cpu": "2", "memory": "20Gi", "gpus": 1}
    spec["cluster"]["retriever"] = {"cpu": "1", "memory": "10Gi"}
    predictor, retriever = sizes()
    assert predictor == {"cpu": "2", "memory": "20Gi", "nvidia.com/gpu": "1"}
    assert retriever == {"cpu": "1", "memory": "10Gi", "nvidia.com/gpu": None}


def test_a_claim_is_asked_for_as_the_settings_say() -> None:
    meta = {"name": "bot", "namespace": "team", "uid": "u"}
    storage = {"access": "ReadWriteOnce", "size": "10Gi"}
    spec = {"model": {"path": "/mnt/exsearch/m"}, "cluster": {"storage": storage}}
    made = claim(read_agent({"metadata": meta, "spec": spec}))
    assert made is not None
    assert made["spec"]["accessModes"] == ["ReadWriteOnce"]
    assert made["spec"]["resources"] == {"requests": {"storage": "10Gi"}}


def test_knative_takes_neither_hooks_nor_a_sidecars_probes() -> None:
    agent = agent_of("laptop").with_mode("Knative")
    predictor, retriever = objects(agent)["ServingRuntime"]["spec"]["containers"]
    assert "lifecycle" not in predictor
    assert not {"lifecycle", "startupProbe", "livenessProbe"} & set(retriever)
    base = yaml.safe_load((MANIFESTS / "components/knative/service.yaml").read_text())
    service = objects(agent)["InferenceService"]
    for name, value in base["metadata"]["annotations"].items():
        assert service["metadata"]["annotations"].get(name) == value
    wanted = dict(base["spec"]["predictor"])
    made = service["spec"]["predictor"]
    assert wanted.pop("annotations").items() <= made["annotations"].items()
    assert {name: made.get(name) for name in wanted} == wanted
