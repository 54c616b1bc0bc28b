"""The operator's manifests: valid, closed, least privilege, and true to the code."""

from __future__ import annotations

import functools
import json
import subprocess
from typing import Any

import kubernetes_validate
import pytest
import yaml
from kube_api.pod_security import violations
from manifest_checks import (
    MANIFESTS,
    SUPPORTED,
    Object,
    named,
    of_kind,
    opens,
    selects,
    title,
    tool,
    wrongs,
)

from exsearch.config import ClusterConfig, ImagesConfig
from exsearch.operator.spec import CanaryConfig

pytestmark = pytest.mark.manifests

NAMESPACE = "exsearch-system"
BUILDS = ("base", "monitored", "tenant")


@functools.cache
def _built(name: str) -> str:
    command = [tool("kubectl"), "kustomize", str(MANIFESTS / "operator" / name)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not done.stderr, done.stderr
    return done.stdout


def build(name: str) -> list[Object]:
    return list(yaml.safe_load_all(_built(name)))


def operator_pod() -> Object:
    return named(build("base"), "Deployment", "exsearch-operator")["spec"]["template"]


def container() -> Object:
    [found] = operator_pod()["spec"]["containers"]
    return found


@pytest.mark.parametrize("version", SUPPORTED)
def test_built_in_kinds_are_valid(version: str) -> None:
    for item in (item for name in BUILDS for item in build(name)):
        if not item["apiVersion"].startswith("monitoring.coreos.com"):
            kubernetes_validate.validate(item, version, strict=True)


def test_the_monitor_follows_its_crd_and_finds_the_pods() -> None:
    [monitor] = of_kind(build("monitored"), "PodMonitor")
    assert wrongs(monitor) == []
    assert selects(monitor["spec"]["selector"], operator_pod()["metadata"]["labels"])
    [endpoint] = monitor["spec"]["podMetricsEndpoints"]
    assert endpoint["port"] in {port["name"] for port in container()["ports"]}


@pytest.mark.parametrize("name", ["base", "monitored"])
def test_objects_are_the_clusters_or_the_operators_namespace(name: str) -> None:
    everywhere = {"Namespace", "CustomResourceDefinition", "ClusterRole", "ClusterRoleBinding"}
    for item in build(name):
        home = item["metadata"].get("namespace")
        assert home == (None if item["kind"] in everywhere else NAMESPACE), title(item)
        assert item["metadata"]["labels"]["app.kubernetes.io/part-of"] == "exsearch", title(item)
    labels = named(build(name), "Namespace", NAMESPACE)["metadata"]["labels"]
    for mode in ("enforce", "audit", "warn"):
        assert labels[f"pod-security.kubernetes.io/{mode}"] == "restricted"
        assert labels[f"pod-security.kubernetes.io/{mode}-version"] == f"v{SUPPORTED[0]}"


def test_the_pod_is_admitted_at_the_restricted_level_and_bounded() -> None:
    assert violations(operator_pod()["spec"]) == []
    found = container()
    assert found["securityContext"]["readOnlyRootFilesystem"] is True
    assert found["image"] == ImagesConfig().tools
    assert found["resources"]["limits"]["memory"] == found["resources"]["requests"]["memory"]
    for variable in found["env"]:
        if "TOKEN" in variable["name"]:
            assert set(variable["valueFrom"]) == {"secretKeyRef"}


def test_selectors_match_the_pod() -> None:
    objects, labels = build("base"), operator_pod()["metadata"]["labels"]
    deployment = named(objects, "Deployment", "exsearch-operator")
    assert selects(deployment["spec"]["selector"], labels)
    assert deployment["spec"]["replicas"] > 1, "a drained node must not leave agents unkept"
    budget = named(objects, "PodDisruptionBudget", "exsearch-operator")
    assert selects(budget["spec"]["selector"], labels)
    [spread] = operator_pod()["spec"]["topologySpreadConstraints"]
    assert selects(spread["labelSelector"], labels)


def test_the_command_takes_the_arguments() -> None:
    from typer.testing import CliRunner

    from exsearch.cli.operator import app

    first, *words = container()["args"]
    assert first == "operator"
    helped = CliRunner().invoke(app, ["run", "--help"], env={"COLUMNS": "200"})
    assert helped.exit_code == 0, helped.output
    flags = [word.partition("=") for word in words if word.startswith("--")]
    for flag, _, _ in flags:
        assert flag in helped.output, flag
    given = {flag: value for flag, _, value in flags}
    assert words[0] == "run"
    [port] = container()["ports"]
    assert given["--metrics-port"] == str(port["containerPort"])
    assert given["--metrics-host"] == "0.0.0.0", "the kubelet probes the pod's own address"
    assert given["--lease-namespace"] == NAMESPACE
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container()[probe]["httpGet"] == {"path": "/healthz", "port": port["name"]}


def rules_of(kind: str, name: str) -> list[Object]:
    return named(build("base"), kind, name)["rules"]


def test_rights_are_named_and_reach_no_secrets() -> None:
    granted = set()
    for kind in ("ClusterRole", "Role"):
        for rule in rules_of(kind, "exsearch-operator"):
            assert "*" not in {*rule["apiGroups"], *rule["resources"], *rule["verbs"]}
            granted |= {(verb, what) for verb in rule["verbs"] for what in rule["resources"]}
    assert not {what for _, what in granted} & {"secrets", "pods", "pods/exec", "serviceaccounts"}
    # What it owns goes with its owner: the garbage collector deletes it.
    assert "delete" not in {verb for verb, _ in granted}
    [lease] = [r for r in rules_of("Role", "exsearch-operator") if "resourceNames" in r]
    assert (lease["resources"], lease["resourceNames"]) == (["leases"], ["exsearch-operator"])


def test_rights_are_the_operators_alone() -> None:
    objects = build("base")
    for kind in ("ClusterRoleBinding", "RoleBinding"):
        [binding] = of_kind(objects, kind)
        assert binding["roleRef"]["name"] == "exsearch-operator"
        subject = {"kind": "ServiceAccount", "name": "exsearch-operator", "namespace": NAMESPACE}
        assert binding["subjects"] == [subject]
    accounts = {
        account["metadata"]["name"]: account["automountServiceAccountToken"]
        for account in of_kind(objects, "ServiceAccount")
    }
    assert accounts == {"default": False, "exsearch-operator": True}
    assert operator_pod()["spec"]["serviceAccountName"] == "exsearch-operator"


def reached(port: int) -> list[Any]:
    """Peers that the operator's pod may open a connection to at a port."""
    labels = operator_pod()["metadata"]["labels"]
    return [
        peer
        for policy in of_kind(build("monitored"), "NetworkPolicy")
        if selects(policy["spec"]["podSelector"], labels)
        for rule in policy["spec"].get("egress", [])
        if opens(rule["ports"], port)
        for peer in rule["to"]
    ]


def in_namespace(name: str) -> Object:
    return {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}}}


def test_the_network_opens_what_is_asked_and_nothing_else() -> None:
    policies = of_kind(build("monitored"), "NetworkPolicy")
    closed = named(policies, "NetworkPolicy", "deny-all")["spec"]
    assert closed == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    assert reached(8888) == [in_namespace("kubeflow")]
    prometheus = CanaryConfig().prometheus
    host, _, port = prometheus.removeprefix("http://").partition(":")
    assert reached(int(port)) == [in_namespace(host.split(".")[1])]
    for number in (443, 6443):
        [peer] = reached(number)
        assert "169.254.169.254/32" in peer["ipBlock"]["except"]
    assert reached(80) == reached(8080) == []
    entered = [rule for policy in policies for rule in policy["spec"].get("ingress", [])]
    [rule] = entered
    assert rule["from"] == [in_namespace("monitoring")]
    assert [port["port"] for port in rule["ports"]] == [container()["ports"][0]["containerPort"]]


def test_a_namespace_for_agents_has_what_their_pods_name() -> None:
    objects = build("tenant")
    accounts = {
        account["metadata"]["name"]: account["automountServiceAccountToken"]
        for account in of_kind(objects, "ServiceAccount")
    }
    assert accounts[ClusterConfig().service_account] is True
    assert accounts["exsearch-agent"] is False
    binding = named(objects, "RoleBinding", "exsearch-promoter")
    subject = {"kind": "ServiceAccount", "name": ClusterConfig().service_account}
    assert binding["subjects"] == [{**subject, "namespace": "exsearch"}]
    assert rules_of("ClusterRole", binding["roleRef"]["name"]) == [
        {"apiGroups": ["exsearch.dev"], "resources": ["searchagents"], "verbs": ["patch"]}
    ]
    agent = {"serving.kserve.io/inferenceservice": "any"}
    doors = [
        policy["metadata"]["name"]
        for policy in of_kind(objects, "NetworkPolicy")
        if selects(policy["spec"]["podSelector"], agent) and policy["spec"].get("ingress")
    ]
    assert doors == ["agents"]


def test_people_get_agents_with_the_roles_that_they_have() -> None:
    edit = named(build("base"), "ClusterRole", "exsearch-searchagents-edit")
    view = named(build("base"), "ClusterRole", "exsearch-searchagents-view")
    prefix = "rbac.authorization.k8s.io/aggregate-to"
    assert {f"{prefix}-admin", f"{prefix}-edit"} <= set(edit["metadata"]["labels"])
    assert f"{prefix}-view" in view["metadata"]["labels"]
    for role in (edit, view):
        text = json.dumps(role["rules"])
        assert "status" not in text, "only the operator writes the status"
    assert view["rules"][0]["verbs"] == ["get", "list", "watch"]
