"""Every overlay builds, is valid, and holds no more rights, doors and privileges than it uses."""

from __future__ import annotations

import json
from itertools import chain

import kubernetes_validate
import pytest
from kube_api.pod_security import violations
from manifest_checks import (
    OVERLAYS,
    SUPPORTED,
    Object,
    agent_pod,
    build,
    containers,
    named,
    of_kind,
    opens,
    run_of,
    selects,
    title,
    wrongs,
)

pytestmark = pytest.mark.manifests

EVERY = pytest.mark.parametrize("overlay", OVERLAYS)
CUSTOM = {"monitoring.coreos.com", "kueue.x-k8s.io", "serving.kserve.io"}
"""API groups whose schemas are CustomResourceDefinitions."""


def everything() -> dict[str, Object]:
    """The objects of all overlays, those that are alike once; key: the JSON."""
    found = chain.from_iterable(build(overlay) for overlay in OVERLAYS)
    return {json.dumps(item, sort_keys=True): item for item in found}


def templates(objects: list[Object]) -> list[Object]:
    """Pod templates, each with its owner's name; the agent's as KServe makes it."""
    found = [
        item["spec"]["template"] | {"owner": title(item)} for item in of_kind(objects, "Deployment")
    ]
    found += [
        item["spec"]["jobTemplate"]["spec"]["template"] | {"owner": title(item)}
        for item in of_kind(objects, "CronJob")
    ]
    return [*found, agent_pod(objects) | {"owner": AGENT}]


AGENT = "InferenceService/exsearch"


def group_of(item: Object) -> str:
    return item["apiVersion"].rpartition("/")[0]


@EVERY
def test_objects_are_one_namespaces_and_named_once(overlay: str) -> None:
    objects = build(overlay)
    names = [title(item) for item in objects]
    assert len(names) == len(set(names))
    outside = [item for item in objects if item["metadata"].get("namespace") != "exsearch"]
    assert [title(item) for item in outside] == ["Namespace/exsearch"]
    for item in objects:
        assert item["metadata"]["labels"]["app.kubernetes.io/part-of"] == "exsearch", title(item)


def test_namespace_is_restricted_and_the_version_pinned() -> None:
    labels = named(build("gpu"), "Namespace", "exsearch")["metadata"]["labels"]
    for mode in ("enforce", "audit", "warn"):
        assert labels[f"pod-security.kubernetes.io/{mode}"] == "restricted"
        assert labels[f"pod-security.kubernetes.io/{mode}-version"] == f"v{SUPPORTED[0]}"


@pytest.mark.parametrize("version", SUPPORTED)
def test_built_in_kinds_are_valid(version: str) -> None:
    checked = 0
    for item in everything().values():
        if group_of(item) not in CUSTOM:
            kubernetes_validate.validate(item, version, strict=True)
            checked += 1
    assert checked > 20


def test_validation_refuses_what_it_should() -> None:
    deployment = named(build("gpu"), "Deployment", "exsearch-retriever")
    deployment["spec"]["template"]["spec"]["tolerance"] = "none"
    with pytest.raises(kubernetes_validate.ValidationError, match="tolerance"):
        kubernetes_validate.validate(deployment, SUPPORTED[-1], strict=True)


def test_custom_kinds_follow_their_crds() -> None:
    custom = [item for item in everything().values() if group_of(item) in CUSTOM]
    kinds = {item["kind"] for item in custom}
    serving = {"ServingRuntime", "InferenceService"}
    assert kinds == {"ServiceMonitor", "PodMonitor", "PrometheusRule", "LocalQueue", *serving}
    assert {title(item): wrongs(item) for item in custom} == {title(i): [] for i in custom}
    broken = json.loads(json.dumps(next(i for i in custom if i["kind"] == "PodMonitor")))
    broken["spec"]["podMetricsEndpoints"][0]["prot"] = "http"
    assert wrongs(broken) == ["unknown spec.podMetricsEndpoints[0].prot"]


@EVERY
def test_pods_are_admitted_at_the_restricted_level(overlay: str) -> None:
    found = templates(build(overlay))
    assert found
    for template in found:
        assert violations(template["spec"]) == [], template["owner"]
        for container in containers(template["spec"]):
            assert container["securityContext"]["readOnlyRootFilesystem"] is True, container["name"]


@EVERY
def test_containers_are_bounded_probed_and_tagged(overlay: str) -> None:
    for template in templates(build(overlay)):
        for container in containers(template["spec"]):
            bounds = container["resources"]
            assert {"cpu", "memory"} <= set(bounds["requests"]), container["name"]
            assert bounds["limits"]["memory"] == bounds["requests"]["memory"], container["name"]
            name, _, tag = container["image"].partition(":")
            assert name, container["image"]
            assert tag not in ("", "latest"), container["image"]
            assert container["imagePullPolicy"] == "IfNotPresent"
            for variable in container.get("env", []):
                if {"SECRET", "KEY", "TOKEN"} & set(variable["name"].split("_")):
                    assert set(variable["valueFrom"]) == {"secretKeyRef"}, variable["name"]
        for container in template["spec"]["containers"]:
            probes = {probe for probe in container if probe.endswith("Probe")}
            assert probes == set(PROBES.get((template["owner"], container["name"]), EVERY_PROBE))


EVERY_PROBE = ("startupProbe", "readinessProbe", "livenessProbe")
PROBES = {
    # The predictor's readiness is the pod's; it covers the sidecar.
    (AGENT, "retriever"): ("startupProbe", "livenessProbe"),
    ("CronJob/exsearch-rollback", "rollback"): (),
}
"""Where not every container has every probe."""


@EVERY
def test_selectors_match_what_they_are_for(overlay: str) -> None:
    objects = build(overlay)
    deployment = named(objects, "Deployment", "exsearch-retriever")
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert selects(deployment["spec"]["selector"], labels)
    [spread] = deployment["spec"]["template"]["spec"]["topologySpreadConstraints"]
    assert selects(spread["labelSelector"], labels)
    budget = named(objects, "PodDisruptionBudget", "exsearch-retriever")
    assert selects(budget["spec"]["selector"], labels)

    service = named(objects, "Service", "exsearch-retriever")
    assert selects({"matchLabels": service["spec"]["selector"]}, labels)
    [container] = deployment["spec"]["template"]["spec"]["containers"]
    [port] = service["spec"]["ports"]
    assert port["targetPort"] in {opened["name"] for opened in container["ports"]}
    agents = agent_pod(objects)["metadata"]["labels"]
    budget = named(objects, "PodDisruptionBudget", "exsearch-agent")
    assert selects(budget["spec"]["selector"], agents)
    for monitor in of_kind(objects, "PodMonitor"):
        if "namespaceSelector" not in monitor["spec"]:
            assert selects(monitor["spec"]["selector"], agents)
    for monitor in of_kind(objects, "ServiceMonitor"):
        assert selects(monitor["spec"]["selector"], service["metadata"]["labels"])
        assert {end["port"] for end in monitor["spec"]["endpoints"]} <= {port["name"]}


@EVERY
def test_network_is_closed_but_for_what_is_used(overlay: str) -> None:
    objects = build(overlay)
    policies = of_kind(objects, "NetworkPolicy")
    assert named(objects, "NetworkPolicy", "deny-all")["spec"] == {
        "podSelector": {},
        "policyTypes": ["Ingress", "Egress"],
    }
    for template in templates(objects):
        labels = template["metadata"]["labels"]
        rules = [
            rule
            for policy in policies
            if selects(policy["spec"]["podSelector"], labels)
            for rule in policy["spec"].get("ingress", [])
        ]
        ports = [p for c in template["spec"]["containers"] for p in c.get("ports", [])]
        for port in ports:
            sources = [
                s for r in rules if opens(r.get("ports"), port["containerPort"]) for s in r["from"]
            ]
            assert {"podSelector": {}} in sources, template["owner"]
            others = [
                s["namespaceSelector"]["matchLabels"] for s in sources if "podSelector" not in s
            ]
            expected = [CLIENTS] if template["owner"] == AGENT else []
            if of_kind(objects, "ServiceMonitor"):
                expected.append({"kubernetes.io/metadata.name": "monitoring"})
            assert others == expected, template["owner"]
    for policy in policies:
        for rule in policy["spec"].get("egress", []):
            assert rule["to"], title(policy)
            assert rule["ports"], title(policy)
            for block in (peer["ipBlock"] for peer in rule["to"] if "ipBlock" in peer):
                assert "169.254.169.254/32" in block["except"], title(policy)


CLIENTS = {"exsearch.dev/agent-client": "true"}
"""Label of the namespaces that may ask the agent."""


@EVERY
def test_the_agent_reaches_dns_and_its_bucket_only(overlay: str) -> None:
    objects = build(overlay)
    labels = agent_pod(objects)["metadata"]["labels"]
    opening = {
        policy["metadata"]["name"]
        for policy in of_kind(objects, "NetworkPolicy")
        if selects(policy["spec"]["podSelector"], labels) and policy["spec"].get("egress")
    }
    bucket = not run_of(overlay).cluster.storage.claim
    assert opening == ({"dns", "object-store"} if bucket else {"dns"})


def test_training_pods_reach_one_another_and_nothing_else() -> None:
    from exsearch.kube.names import Work, labels

    work = Work(run="runs/a", step="warmup-train", job_file="/mnt/job.json", fingerprint="f")
    pod = labels(work, run_of("gpu").cluster)
    policies = of_kind(build("gpu"), "NetworkPolicy")
    applying = {
        p["metadata"]["name"]: p for p in policies if selects(p["spec"]["podSelector"], pod)
    }
    assert set(applying) == {"deny-all", "dns", "training"}
    spec = applying["training"]["spec"]
    for direction, peers in (("ingress", "from"), ("egress", "to")):
        [rule] = spec[direction]
        assert opens(rule["ports"], 23456)
        [peer] = rule[peers]
        assert set(peer) == {"podSelector"}
        assert selects(peer["podSelector"], pod)
        assert not selects(peer["podSelector"], {"app.kubernetes.io/name": "exsearch-retriever"})


WRITABLE = {"pytorchjobs", "trainjobs", "inferenceservices", "workflowtaskresults"}
KFP_ARTIFACTS = {
    "apiGroups": [""],
    "resources": ["secrets"],
    "resourceNames": ["mlpipeline-minio-artifact"],
    "verbs": ["get"],
}
"""The one rule about secrets, and only where Kubeflow Pipelines keeps its default."""


@EVERY
def test_roles_hold_least_privilege(overlay: str) -> None:
    objects = build(overlay)
    assert not of_kind(objects, "ClusterRole") + of_kind(objects, "ClusterRoleBinding")
    for role in of_kind(objects, "Role"):
        for rule in role["rules"]:
            named_things = {*rule["apiGroups"], *rule["resources"], *rule["verbs"]}
            assert "*" not in named_things, title(role)
            if "secrets" in rule["resources"]:
                assert (overlay, rule) == ("laptop", KFP_ARTIFACTS)
            if set(rule["verbs"]) - {"get", "list", "watch"}:
                assert set(rule["resources"]) <= WRITABLE, title(role)


@EVERY
def test_accounts_hold_a_token_only_where_a_role_needs_one(overlay: str) -> None:
    objects = build(overlay)
    roles = {role["metadata"]["name"] for role in of_kind(objects, "Role")}
    bound = set()
    for binding in of_kind(objects, "RoleBinding"):
        assert binding["roleRef"]["name"] in roles
        for subject in binding["subjects"]:
            assert subject["namespace"] == "exsearch"
            bound.add(subject["name"])
    accounts = {
        account["metadata"]["name"]: account["automountServiceAccountToken"]
        for account in of_kind(objects, "ServiceAccount")
    }
    assert {name for name, token in accounts.items() if token} == bound
    assert {"default", "exsearch-retriever", "exsearch-agent"} <= set(accounts) - bound
