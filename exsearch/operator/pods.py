"""What makes the agent's pods: the ServingRuntime and the InferenceService. Pure."""

from __future__ import annotations

import copy
import functools
from importlib import resources

import yaml

from exsearch.config import Resources
from exsearch.kube.deploy import storage_uri
from exsearch.kube.serving import DIGEST, RUN
from exsearch.operator.agent import Agent, Served
from exsearch.operator.kinds import AGENT, SETTINGS, Object, reference
from exsearch.records import canonical_json
from exsearch.storage import digest_bytes, is_remote

_TIER = {"app.kubernetes.io/name": "exsearch", "app.kubernetes.io/managed-by": "exsearch-operator"}


def metadata(agent: Agent, name: str, annotations: dict[str, str] | None = None) -> Object:
    """Metadata of an object that belongs to an agent."""
    found: Object = {
        "name": name,
        "namespace": agent.namespace,
        "labels": {**agent.run.cluster.labels, **_TIER, AGENT: agent.name},
        "ownerReferences": [reference(agent.meta)],
    }
    return {**found, "annotations": annotations} if annotations else found


@functools.cache
def _templates() -> Object:
    return yaml.safe_load(
        resources.files("exsearch.operator").joinpath("templates.yaml").read_text()
    )


def _template(name: str) -> Object:
    return copy.deepcopy(_templates()[name])


def runtime(agent: Agent) -> Object:
    """How a pod of the agent runs: predictor, retriever beside it, their volumes."""
    cluster, images = agent.run.cluster, agent.run.cluster.images
    made = _template("runtime")
    spec = made["spec"]
    predictor, retriever = spec["containers"]
    predictor["image"], retriever["image"] = images.agent, images.retriever
    for container in (predictor, retriever):
        container["imagePullPolicy"] = images.pull_policy
        if agent.splits:
            # Knative takes no hooks, and no probes beside the predictor's.
            container.pop("lifecycle")
    if agent.splits:
        retriever.pop("startupProbe")
        retriever.pop("livenessProbe")
    serving = cluster.predictor or cluster.rollout
    _size(predictor, serving, cluster.gpu)
    # Searching needs no GPU, even where encoding has one.
    beside = cluster.retriever or cluster.index.model_copy(update={"gpus": 0})
    _size(retriever, beside, cluster.gpu)
    spec["volumes"].insert(0, {"name": "run", "configMap": {"name": f"{agent.name}-run"}})
    _index_volume(agent, retriever, spec["volumes"])
    if is_remote(agent.run.cluster.storage.root):
        # The model's copy counts as the predictor's.
        predictor["resources"]["requests"]["ephemeral-storage"] = "40Gi"
        predictor["resources"]["limits"]["ephemeral-storage"] = "60Gi"
    selector = {**cluster.node_selector, **(cluster.gpu_selector if serving.gpus else {})}
    if selector:
        spec["nodeSelector"] = selector
    if cluster.tolerations:
        spec["tolerations"] = [
            t.model_dump(exclude_defaults=True) | {"operator": t.operator}
            for t in cluster.tolerations
        ]
    if images.pull_secrets:
        spec["imagePullSecrets"] = [{"name": name} for name in images.pull_secrets]
    return {**made, "metadata": metadata(agent, agent.name)}


def _size(container: Object, asked: Resources, gpu: str) -> None:
    """Give a container its resources; limits equal requests for memory and GPUs."""
    fixed = {"memory": asked.memory, **({gpu: str(asked.gpus)} if asked.gpus else {})}
    container["resources"]["requests"] |= {"cpu": asked.cpu, **fixed}
    container["resources"]["limits"] |= fixed


def _index_volume(agent: Agent, retriever: Object, volumes: list[Object]) -> None:
    """What the sidecar reads the index from: the claim, or the copy that `fetch` makes."""
    storage, retrieval = agent.run.cluster.storage, agent.run.retrieval
    if is_remote(retrieval.index):
        at = "/mnt/index"
        checkpoint = retrieval.checkpoint
        local = f"{at}/checkpoint" if is_remote(checkpoint) else checkpoint
        flags = [f"--index={at}/index", f"--set=retrieval.checkpoint={local}"]
        retriever["args"][2:2] = flags
        for limit in retriever["resources"].values():
            limit["ephemeral-storage"] = "200Gi"
        volumes.append({"name": "index", "emptyDir": {"sizeLimit": "200Gi"}})
        retriever["volumeMounts"].append({"name": "index", "mountPath": at, "readOnly": True})
    elif storage.claim:
        volumes.append({"name": "data", "persistentVolumeClaim": {"claimName": storage.claim}})
        mount = {"name": "data", "mountPath": storage.mount, "readOnly": True}
        retriever["volumeMounts"].append(mount)


def service(agent: Agent, served: Served) -> Object:
    """The InferenceService; which model, and for how many of the requests."""
    made = _template("service")
    by_mode = _template("knative" if agent.splits else "standard")
    predictor = made["spec"]["predictor"] | by_mode["predictor"]
    if agent.splits:
        predictor["scaleTarget"] = max(1, agent.run.serving.concurrency * 3 // 4)
        if served.share is not None:
            predictor["canaryTrafficPercent"] = served.share
    predictor["topologySpreadConstraints"] = [
        _spread({"serving.kserve.io/inferenceservice": agent.name})
    ]
    predictor["annotations"] = {**predictor.get("annotations", {}), SETTINGS: _read_at_start(agent)}
    predictor["model"] |= {
        "runtime": agent.name,
        "storageUri": storage_uri(served.model, agent.run.cluster.storage),
    }
    waiting = _init_container(agent)
    if waiting is not None:
        predictor["initContainers"] = [waiting]
    annotations = {**by_mode["annotations"], RUN: served.run, DIGEST: served.digest}
    spec = {"predictor": predictor}
    return {**made, "metadata": metadata(agent, agent.name, annotations), "spec": spec}


def _spread(labels: dict[str, str]) -> Object:
    return {
        "maxSkew": 1,
        "topologyKey": "kubernetes.io/hostname",
        "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": labels},
    }


def _init_container(agent: Agent) -> Object | None:
    """Waits for the index, or brings it; None where a retriever elsewhere is asked."""
    retrieval, storage, images = agent.run.retrieval, agent.run.cluster.storage, agent.run.cluster
    if not retrieval.index:
        return None
    remote = is_remote(retrieval.index)
    if not remote and not storage.claim:
        return None
    made = _template("fetch" if remote else "wait")
    made |= {
        "image": images.images.retriever,
        "imagePullPolicy": images.images.pull_policy,
    }
    if not remote:
        made["args"] = [made["args"][0].replace("{index}/", f"{retrieval.index}/", 1)]
        made["volumeMounts"] = [{"name": "data", "mountPath": storage.mount, "readOnly": True}]
        return made
    made["env"] = [
        {"name": "HOME", "value": "/tmp"},
        {"name": "EXSEARCH_INDEX", "value": retrieval.index},
        {"name": "EXSEARCH_CHECKPOINT", "value": retrieval.checkpoint},
    ]
    if storage.secret:
        made["envFrom"] = [{"secretRef": {"name": storage.secret}}]
    made["volumeMounts"] = [
        {"name": "index", "mountPath": "/mnt/index"},
        {"name": "scratch", "mountPath": "/tmp"},
    ]
    return made


def _read_at_start(agent: Agent) -> str:
    """Digest of the settings that the serving pods read: when it changes, they are replaced."""
    run = agent.run
    parts = {
        "agent": run.agent.model_dump(mode="json"),
        "policy": run.policy.model_dump(mode="json"),
        "retrieval": run.retrieval.model_dump(mode="json"),
        "serving": run.serving.model_dump(mode="json"),
        "model": run.model.model_dump(mode="json", exclude={"path"}),
    }
    return digest_bytes(canonical_json(parts).encode())
