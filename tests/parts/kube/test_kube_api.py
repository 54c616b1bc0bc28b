"""The API server that the other tests talk to: what it must do as the real one does it."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kube_api.apply import Manager, applied_to, leaves, read_owners, write_owners
from kube_api.cluster import Cluster
from kube_api.kubelet import Kubelet
from kube_api.outcome import Outcome
from kube_api.pod_security import violations
from kube_api.schema import Node
from kube_api.status import ApiError
from kube_api.training_operator import TrainingOperator
from kubernetes import client, watch
from kubernetes.client import ApiException

pytestmark = pytest.mark.kube

JOBS = ("kubeflow.org", "v1")
RESTRICTED = {
    "allowPrivilegeEscalation": False,
    "runAsNonRoot": True,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}


def pod(name: str, **container: Any) -> dict[str, Any]:
    spec = {"containers": [{"name": "main", "image": "example/main:1", **container}]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}


def pytorch_job(
    name: str, *, policy: str = "ExitCode", command: str = "true", **run_policy: Any
) -> dict[str, Any]:
    def replica() -> dict[str, Any]:
        container = {
            "name": "pytorch",
            "image": "example/train:1",
            "command": ["sh", "-c", command],
        }
        template = {"spec": {"containers": [container]}}
        return {"replicas": 1, "restartPolicy": policy, "template": template}

    spec: dict[str, Any] = {"pytorchReplicaSpecs": {"Master": replica(), "Worker": replica()}}
    if run_policy:
        spec["runPolicy"] = run_policy
    return {"apiVersion": "kubeflow.org/v1", "kind": "PyTorchJob",
            "metadata": {"name": name}, "spec": spec}  # fmt: skip


def reason(error: pytest.ExceptionInfo[ApiException]) -> tuple[int | None, str]:
    return error.value.status, json.loads(error.value.body or "{}")["reason"]


def message(error: pytest.ExceptionInfo[ApiException]) -> str:
    return json.loads(error.value.body or "{}")["message"]


def until(look: Callable[[], Any], seconds: float = 60.0) -> Any:
    """The first true answer within the time."""
    end = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < end, f"not within {seconds} s"
        time.sleep(0.05)
    return found


@pytest.fixture
def jobs(cluster: Cluster, namespace: str) -> Callable[[str], dict[str, str]]:
    """Conditions of a PyTorchJob by name, `True` ones only, with their messages."""

    def conditions(name: str) -> dict[str, str]:
        found: Any = cluster.custom.get_namespaced_custom_object(
            *JOBS, namespace, "pytorchjobs", name
        )
        listed = found.get("status", {}).get("conditions", ())
        return {c["type"]: c["message"] for c in listed if c["status"] == "True"}

    return conditions


def test_an_object_lives(cluster: Cluster, namespace: str) -> None:
    core = cluster.core
    made: Any = core.create_namespaced_config_map(
        namespace, {"metadata": {"name": "settings", "labels": {"a": "b"}}, "data": {"k": "v"}}
    )
    assert made.metadata.uid
    assert made.metadata.creation_timestamp
    with pytest.raises(ApiException) as twice:
        core.create_namespaced_config_map(namespace, {"metadata": {"name": "settings"}})
    assert reason(twice) == (409, "AlreadyExists")

    changed: Any = core.patch_namespaced_config_map("settings", namespace, {"data": {"l": "w"}})
    assert changed.data == {"k": "v", "l": "w"}
    assert int(changed.metadata.resource_version) > int(made.metadata.resource_version)
    made.data = {"k": "other"}
    with pytest.raises(ApiException) as stale:
        core.replace_namespaced_config_map("settings", namespace, made)
    assert reason(stale) == (409, "Conflict")

    listed: Any = core.list_namespaced_config_map(namespace, label_selector="a in (b, c),!d")
    assert [item.metadata.name for item in listed.items] == ["settings"]
    by_name: Any = core.list_namespaced_config_map(namespace, field_selector="metadata.name=no")
    assert by_name.items == []
    core.delete_namespaced_config_map("settings", namespace)
    with pytest.raises(ApiException) as gone:
        core.read_namespaced_config_map("settings", namespace)
    assert reason(gone) == (404, "NotFound")


@pytest.mark.parametrize(
    ("change", "status", "says"),
    [
        ({"spec": {"pytorchReplicaSpecs": {"Master": {"replicas": "two"}}}}, 422,
         "must be of type integer"),
        ({"spec": {}}, 422, "pytorchReplicaSpecs: Required value"),
        ({"spec": {"pytorchReplicaSpecs": {}, "elasticPolicy": {"rdzvBackend": 3}}}, 422,
         "rdzvBackend"),
        ({"spec": {"pytorchReplicaSpecs": {}, "patience": 3}}, 400,
         'strict decoding error: unknown field "spec.patience"'),
        ({"metadata": {"name": "Not_A_Name"}}, 422, "metadata.name: Invalid value"),
        ({"metadata": {"name": "x", "labels": {"a": "no spaces"}}}, 422, "metadata.labels"),
    ],
)  # fmt: skip
def test_a_custom_object_is_held_to_its_schema(
    cluster: Cluster, namespace: str, change: dict[str, Any], status: int, says: str
) -> None:
    body = {**pytorch_job("held"), **change}
    with pytest.raises(ApiException) as refused:
        cluster.custom.create_namespaced_custom_object(
            *JOBS, namespace, "pytorchjobs", body, field_validation="Strict"
        )
    assert refused.value.status == status
    assert says in message(refused)


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        (pod("x", pullPolicy="Never"), 400,
         'unknown field "spec.containers[0].pullPolicy"'),
        (pod("x", ports=[{"containerPort": "http"}]), 400, "cannot be handled as a Pod"),
        (pod("x", volumeMounts=[{"name": "none", "mountPath": "/x"}]), 422, 'Not found: "none"'),
        ({**pod("x"), "spec": {"containers": []}}, 422, "spec.containers: Required value"),
    ],
)  # fmt: skip
def test_a_built_in_object_is_held_to_its_schema(
    cluster: Cluster, namespace: str, body: dict[str, Any], status: int, says: str
) -> None:
    with pytest.raises(ApiException) as refused:
        cluster.core.create_namespaced_pod(namespace, body, field_validation="Strict")
    assert refused.value.status == status
    assert says in message(refused)


def test_unknown_fields_are_dropped_where_they_are_not_refused(
    cluster: Cluster, namespace: str
) -> None:
    body = pytorch_job("lenient")
    body["spec"]["patience"] = 3
    made: Any = cluster.custom.create_namespaced_custom_object(
        *JOBS, namespace, "pytorchjobs", body
    )
    assert "patience" not in made["spec"]


def test_status_and_spec_change_apart(cluster: Cluster, namespace: str) -> None:
    custom = cluster.custom
    place = (*JOBS, namespace, "pytorchjobs")
    body = {**pytorch_job("parts"), "status": {"startTime": "2026-01-01T00:00:00Z"}}
    made: Any = custom.create_namespaced_custom_object(*place, body)
    assert "status" not in made
    assert made["metadata"]["generation"] == 1
    status = {"startTime": "2026-01-01T00:00:00Z"}
    told: Any = custom.patch_namespaced_custom_object_status(
        *place, "parts", {"status": status, "spec": {"nprocPerNode": "9"}}
    )
    assert told["status"] == status
    assert told["spec"] == made["spec"]
    assert told["metadata"]["generation"] == 1
    changed: Any = custom.patch_namespaced_custom_object(
        *place, "parts", {"spec": {"nprocPerNode": "2"}, "status": {"startTime": None}}
    )
    assert changed["spec"]["nprocPerNode"] == "2"
    assert changed["status"] == status
    assert changed["metadata"]["generation"] == 2


def server_side_apply(
    cluster: Cluster, path: str, body: dict[str, Any], manager: str, *, force: bool = False
) -> dict[str, Any]:
    answer: Any = cluster.client().call_api(
        path,
        "PATCH",
        query_params=[("fieldManager", manager), ("force", str(force).lower())],
        header_params={"Content-Type": "application/apply-patch+yaml"},
        body=body,
        auth_settings=["BearerToken"],
        response_type="object",
    )
    return answer[0]


def apply(
    cluster: Cluster, namespace: str, manager: str, data: dict[str, str], *, force: bool = False
) -> dict[str, str]:
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "shared"}, "data": data}
    path = f"/api/v1/namespaces/{namespace}/configmaps/shared"
    return server_side_apply(cluster, path, body, manager, force=force)["data"]


def test_appliers_own_fields(cluster: Cluster, namespace: str) -> None:
    assert apply(cluster, namespace, "one", {"a": "1", "b": "1"}) == {"a": "1", "b": "1"}
    assert apply(cluster, namespace, "two", {"c": "2"}) == {"a": "1", "b": "1", "c": "2"}
    with pytest.raises(ApiException) as refused:
        apply(cluster, namespace, "two", {"a": "2", "c": "2"})
    assert refused.value.status == 409
    assert 'conflict with "one": .data.a' in message(refused)
    forced = apply(cluster, namespace, "two", {"a": "2", "c": "2"}, force=True)
    assert forced == {"a": "2", "b": "1", "c": "2"}
    # What an applier no longer says goes, unless another owns it.
    assert apply(cluster, namespace, "two", {"c": "2"}) == {"b": "1", "c": "2"}
    assert apply(cluster, namespace, "one", {"c": "2"}) == {"c": "2"}
    assert apply(cluster, namespace, "two", {"d": "2"}) == {"c": "2", "d": "2"}


SCHEMA = Node({"x-kubernetes-preserve-unknown-fields": True})
VALUES = st.recursive(
    st.integers() | st.text(max_size=3) | st.lists(st.integers(), max_size=2),
    lambda inner: st.dictionaries(st.sampled_from("abcd."), inner, min_size=1, max_size=3),
    max_leaves=6,
)
INTENTS = st.dictionaries(st.sampled_from(["spec", "data"]), VALUES, min_size=1)


@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.too_slow])
@given(first=INTENTS, second=INTENTS)
def test_applying_settles(first: dict[str, Any], second: dict[str, Any]) -> None:
    """Nobody undoes another's fields, to say it again changes nothing, to leave leaves no trace."""
    one, two = Manager("one", "Apply"), Manager("two", "Apply")
    live, owners = applied_to(None, first, SCHEMA, one, {}, False)
    try:
        both, shared = applied_to(live, second, SCHEMA, two, owners, False)
    except ApiError as conflict:
        if conflict.code != 409:
            raise
        both, shared = applied_to(live, second, SCHEMA, two, owners, True)
    assert read_owners(write_owners(shared, "v1", "")) == shared
    assert applied_to(both, second, SCHEMA, two, shared, False) == (both, shared)
    for path, value in leaves(second, SCHEMA).items():
        assert leaves(both, SCHEMA)[path] == value
    kept = {p: v for p, v in leaves(first, SCHEMA).items() if p in shared.get(one, frozenset())}
    left, _ = applied_to(both, {}, SCHEMA, two, shared, False)
    assert kept.items() <= leaves(left, SCHEMA).items()


def test_lists_merge_by_their_keys(cluster: Cluster, namespace: str) -> None:
    apps = client.AppsV1Api(cluster.client())

    def deployment(*containers: dict[str, Any]) -> dict[str, Any]:
        template = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": list(containers)}}
        spec = {"selector": {"matchLabels": {"a": "b"}}, "template": template}
        return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"},
                "spec": spec}  # fmt: skip

    def applied(manager: str, *containers: dict[str, Any]) -> dict[str, Any]:
        path = f"/apis/apps/v1/namespaces/{namespace}/deployments/d"
        made = server_side_apply(cluster, path, deployment(*containers), manager)
        return {c["name"]: c for c in made["spec"]["template"]["spec"]["containers"]}

    main = {"name": "main", "image": "example/main:1", "env": [{"name": "A", "value": "1"}]}
    side = {"name": "side", "image": "example/side:1"}
    assert set(applied("one", main)) == {"main"}
    both = applied("two", {"name": "main", "env": [{"name": "B", "value": "2"}]}, side)
    assert {e["name"] for e in both["main"]["env"]} == {"A", "B"}
    assert both["main"]["image"] == "example/main:1"
    assert set(applied("two", side)) == {"main", "side"}
    patched: Any = apps.patch_namespaced_deployment(
        "d", namespace,
        {"spec": {"template": {"spec": {"containers": [{"name": "main", "image": "x:2"}]}}}},
    )  # fmt: skip
    images = {c.name: c.image for c in patched.spec.template.spec.containers}
    assert images == {"main": "x:2", "side": "example/side:1"}


def test_an_apply_with_an_unknown_field_is_refused(cluster: Cluster, namespace: str) -> None:
    body = pytorch_job("unknown")
    body["spec"]["patience"] = 3
    path = f"/apis/kubeflow.org/v1/namespaces/{namespace}/pytorchjobs/unknown"
    with pytest.raises(ApiException) as refused:
        server_side_apply(cluster, path, body, "one")
    assert ".spec.patience: field not declared in schema" in message(refused)


def test_a_json_patch_tests_before_it_writes(cluster: Cluster, namespace: str) -> None:
    cluster.core.create_namespaced_config_map(
        namespace, {"metadata": {"name": "patched"}, "data": {"a": "1"}}
    )
    patched: Any = cluster.core.patch_namespaced_config_map(
        "patched", namespace,
        [{"op": "test", "path": "/data/a", "value": "1"},
         {"op": "add", "path": "/data/b~1c", "value": "2"}],
    )  # fmt: skip
    assert patched.data == {"a": "1", "b/c": "2"}
    with pytest.raises(ApiException) as refused:
        cluster.core.patch_namespaced_config_map(
            "patched", namespace, [{"op": "test", "path": "/data/a", "value": "9"}]
        )
    assert refused.value.status == 422


def watched(
    cluster: Cluster, namespace: str, version: str, count: int, seconds: int = 60, **selectors: str
) -> list[tuple[str, str]]:
    """Kind of event and the object's version, of the first events of a watch."""
    stream = watch.Watch().stream(
        cluster.core.list_namespaced_config_map, namespace, resource_version=version,
        timeout_seconds=seconds, **selectors,
    )  # fmt: skip
    first: Any = itertools.islice(stream, count)
    return [(event["type"], event["object"].metadata.resource_version) for event in first]


def test_a_watch_tells_what_happened_and_what_happens(cluster: Cluster, namespace: str) -> None:
    core = cluster.core
    start: Any = core.list_namespaced_config_map(namespace)
    version = start.metadata.resource_version
    body = {"metadata": {"name": "seen", "labels": {"show": "yes"}}}
    core.create_namespaced_config_map(namespace, body)
    core.create_namespaced_config_map(namespace, {"metadata": {"name": "hidden"}})

    def later() -> None:
        time.sleep(0.5)
        core.patch_namespaced_config_map("seen", namespace, {"data": {"k": "v"}})
        # It no longer matches: gone for those who select.
        core.patch_namespaced_config_map("seen", namespace, {"metadata": {"labels": None}})

    writer = threading.Thread(target=later)
    writer.start()
    events = watched(cluster, namespace, version, 3, label_selector="show=yes")
    writer.join()
    assert [kind for kind, _ in events] == ["ADDED", "MODIFIED", "DELETED"]
    versions = [int(version) for _, version in events]
    assert versions == sorted(versions)
    # From the middle on, nothing is told twice.
    rest = watched(cluster, namespace, str(versions[0]), 2, label_selector="show=yes")
    assert [kind for kind, _ in rest] == ["MODIFIED", "DELETED"]


def test_a_watch_from_a_forgotten_version_is_refused(cluster: Cluster, namespace: str) -> None:
    start: Any = cluster.core.list_namespaced_config_map(namespace)
    cluster.expire()
    with pytest.raises(ApiException) as refused:
        watched(cluster, namespace, start.metadata.resource_version, 1)
    assert refused.value.status == 410
    again: Any = cluster.core.list_namespaced_config_map(namespace)
    assert watched(cluster, namespace, again.metadata.resource_version, 1, seconds=1) == []


def test_a_restart_breaks_watches_and_keeps_objects(cluster: Cluster, namespace: str) -> None:
    core = cluster.core
    made: Any = core.create_namespaced_config_map(namespace, {"metadata": {"name": "kept"}})
    version = made.metadata.resource_version
    ended = threading.Event()

    def follow() -> None:
        with contextlib.suppress(Exception):  # however the client puts it
            watched(cluster, namespace, version, 1)
        ended.set()

    threading.Thread(target=follow, daemon=True).start()
    time.sleep(1)
    assert not ended.is_set()
    cluster.stop()
    try:
        assert ended.wait(20), "the watch outlived the server"
    finally:
        cluster.start()
    found: Any = until(lambda: core.read_namespaced_config_map("kept", namespace))
    assert found.metadata.uid == made.metadata.uid
    core.patch_namespaced_config_map("kept", namespace, {"data": {"k": "v"}})
    assert [kind for kind, _ in watched(cluster, namespace, version, 1)] == ["MODIFIED"]


def test_an_account_may_what_its_role_says(cluster: Cluster, namespace: str) -> None:
    core, rbac = cluster.core, client.RbacAuthorizationV1Api(cluster.client())
    core.create_namespaced_service_account(namespace, {"metadata": {"name": "reader"}})
    rules = [
        {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "list"]},
        {"apiGroups": [""], "resources": ["pods/log"], "verbs": ["get"]},
        {"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"], "resourceNames": ["mine"]},
    ]
    rbac.create_namespaced_role(namespace, {"metadata": {"name": "reader"}, "rules": rules})
    subject = {"kind": "ServiceAccount", "name": "reader", "namespace": namespace}
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "reader"}
    binding: Any = {"metadata": {"name": "reader"}, "subjects": [subject], "roleRef": role}
    rbac.create_namespaced_role_binding(namespace, binding)
    core.create_namespaced_secret(namespace, {"metadata": {"name": "mine"}})
    api = cluster.client(f"{namespace}/reader")
    mine = client.CoreV1Api(api)
    until(lambda: _allowed(lambda: mine.list_namespaced_config_map(namespace)))
    assert mine.read_namespaced_secret("mine", namespace)
    for forbidden in (
        lambda: mine.create_namespaced_config_map(namespace, {"metadata": {"name": "x"}}),
        lambda: mine.list_namespaced_config_map("default"),
        lambda: mine.list_namespaced_secret(namespace),
        lambda: mine.list_namespaced_pod(namespace),
        mine.list_node,
    ):
        with pytest.raises(ApiException) as refused:
            forbidden()
        assert reason(refused) == (403, "Forbidden")
    says = message(refused)
    assert says == (
        f'nodes is forbidden: User "system:serviceaccount:{namespace}:reader" cannot list resource'
        ' "nodes" in API group "" at the cluster scope'
    )
    asked = {"namespace": namespace, "verb": "get", "resource": "pods", "subresource": "log"}
    review: Any = {"spec": {"resourceAttributes": asked}}
    answer: Any = client.AuthorizationV1Api(api).create_self_subject_access_review(review)
    assert answer.status.allowed


def _allowed(call: Callable[[], Any]) -> bool:
    try:
        call()
    except ApiException as error:
        if error.status != 403:
            raise
        return False
    return True


def test_requests_are_recorded_and_failed(cluster: Cluster, namespace: str) -> None:
    before = len(cluster.requests)
    cluster.fail(lambda r: r.namespace == namespace, status=429, times=1)
    with pytest.raises(ApiException) as refused:
        cluster.core.list_namespaced_pod(namespace)
    assert reason(refused) == (429, "TooManyRequests")
    # With Retry-After, and after a broken connection, this client tries again by itself.
    for status, after in ((429, 1), (0, None)):
        cluster.fail(lambda r: r.namespace == namespace, status, times=1, retry_after=after)
        cluster.core.list_namespaced_pod(namespace)
    last = cluster.requests[before:]
    assert [(r.user, r.verb, r.resource) for r in last] == [("admin", "list", "pods")] * 5


def test_a_restricted_namespace_refuses_loose_pods(cluster: Cluster, namespace: str) -> None:
    label = {"pod-security.kubernetes.io/enforce": "restricted"}
    cluster.core.patch_namespace(namespace, {"metadata": {"labels": label}})

    def refused_now() -> bool:
        body = pod("seen")
        return not _allowed(
            lambda: cluster.core.create_namespaced_pod(namespace, body, dry_run="All")
        )

    until(refused_now)  # admission learns of the label a moment later
    with pytest.raises(ApiException) as refused:
        cluster.core.create_namespaced_pod(namespace, pod("loose"))
    assert refused.value.status == 403
    assert 'violates PodSecurity "restricted:latest"' in message(refused)
    assert "allowPrivilegeEscalation != false" in message(refused)
    cluster.core.create_namespaced_pod(namespace, pod("tight", securityContext=RESTRICTED))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({}, ""),
        ({"hostNetwork": True}, "host namespaces"),
        ({"volumes": [{"name": "v", "hostPath": {"path": "/"}}]}, "restricted volume types"),
        ({"volumes": [{"name": "v", "emptyDir": {}}]}, ""),
        ({"securityContext": {"runAsUser": 0}}, "runAsUser=0"),
        ({"initContainers": [{"name": "init"}]}, 'container "init"'),
        ({"securityContext": {"sysctls": [{"name": "kernel.msgmax"}]}}, "sysctls"),
        ({"main": {"ports": [{"hostPort": 80}]}}, "hostPort"),
        ({"main": {"securityContext": {**RESTRICTED, "privileged": True}}}, "privileged"),
        ({"main": {"securityContext": {**RESTRICTED, "seccompProfile": None}}}, "seccompProfile"),
        ({"main": {"securityContext": {**RESTRICTED, "runAsNonRoot": None}}}, "runAsNonRoot"),
        ({"main": {"securityContext": {**RESTRICTED, "capabilities": {"drop": ["NET_RAW"]}}}},
         "capabilities"),
        ({"main": {"securityContext": {**RESTRICTED, "capabilities": {
            "drop": ["ALL"], "add": ["SYS_ADMIN"]}}}}, "capabilities"),
    ],
)  # fmt: skip
def test_the_restricted_level(change: dict[str, Any], says: str) -> None:
    main = {"name": "main", "securityContext": RESTRICTED, **change.get("main", {})}
    spec = {"containers": [main], **{k: v for k, v in change.items() if k != "main"}}
    found = violations(spec)
    assert (says in " ".join(found)) if says else not found


def test_owners_take_their_dependents_along(cluster: Cluster, namespace: str) -> None:
    if not cluster.collects_garbage:
        pytest.skip("no controller manager")
    core = cluster.core
    owner: Any = core.create_namespaced_config_map(namespace, {"metadata": {"name": "owner"}})
    reference = {"apiVersion": "v1", "kind": "ConfigMap", "name": "owner",
                 "uid": owner.metadata.uid, "blockOwnerDeletion": True}  # fmt: skip
    meta = {"name": "owned", "ownerReferences": [reference], "finalizers": ["test.example/hold"]}
    core.create_namespaced_config_map(namespace, {"metadata": meta})
    core.delete_namespaced_config_map("owner", namespace, propagation_policy="Foreground")
    waiting: Any = core.read_namespaced_config_map("owner", namespace)
    assert waiting.metadata.deletion_timestamp
    owned: Any = until(lambda: _marked(core.read_namespaced_config_map("owned", namespace)))
    assert owned.metadata.finalizers == ["test.example/hold"]
    core.patch_namespaced_config_map("owned", namespace, {"metadata": {"finalizers": None}})
    until(lambda: not cast_list(core.list_namespaced_config_map(namespace)) - {"kube-root-ca.crt"})


def _marked(item: Any) -> Any:
    return item if item.metadata.deletion_timestamp else None


def cast_list(listed: Any) -> set[str]:
    return {item.metadata.name for item in listed.items}


KUSTOMIZATION = {
    "kustomization.yaml": """
resources: [account.yaml, deployment.yaml, job.yaml]
configMapGenerator:
- {name: settings, literals: [a=b]}
labels:
- {pairs: {app.kubernetes.io/part-of: test}}
""",
    "account.yaml": "{apiVersion: v1, kind: ServiceAccount, metadata: {name: main}}",
    "deployment.yaml": """
apiVersion: apps/v1
kind: Deployment
metadata: {name: main}
spec:
  selector: {matchLabels: {app: main}}
  template:
    metadata: {labels: {app: main}}
    spec:
      serviceAccountName: main
      containers:
      - {name: main, image: "example/main:1", envFrom: [{configMapRef: {name: settings}}]}
""",
}


def test_kubectl_applies_a_kustomization(cluster: Cluster, namespace: str, tmp_path: Path) -> None:
    for name, text in KUSTOMIZATION.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "job.yaml").write_text(json.dumps(pytorch_job("main")))

    def kubectl(*words: str) -> subprocess.CompletedProcess[str]:
        program = Path(sys.executable).with_name("kubectl")
        config = cluster.kubeconfig(namespace=namespace)
        return subprocess.run([program, f"--kubeconfig={config}", *words], text=True,
                              capture_output=True, timeout=300,
                              env={**os.environ, "HOME": str(tmp_path)})  # fmt: skip

    apply = ("apply", "--server-side", "--validate=strict", "-k", str(tmp_path))
    done = kubectl(*apply)
    assert done.returncode == 0, done.stderr
    assert "pytorchjob.kubeflow.org/main serverside-applied" in done.stdout
    assert not done.stderr
    made: Any = client.AppsV1Api(cluster.client()).read_namespaced_deployment("main", namespace)
    assert made.metadata.managed_fields[0].manager == "kubectl"
    done = kubectl("get", "deploy,pytorchjobs", "-o", "name")
    assert done.stdout.split() == ["deployment.apps/main", "pytorchjob.kubeflow.org/main"]

    broken = pytorch_job("main")
    broken["spec"]["patience"] = 3
    (tmp_path / "job.yaml").write_text(json.dumps(broken))
    done = kubectl(*apply)
    assert done.returncode == 1
    assert "patience" in done.stderr


def create(cluster: Cluster, namespace: str, job: dict[str, Any]) -> None:
    cluster.custom.create_namespaced_custom_object(*JOBS, namespace, "pytorchjobs", job)


def test_a_training_job_succeeds(
    cluster: Cluster, namespace: str, jobs: Callable[[str], dict[str, str]]
) -> None:
    run = {
        "*-master-0": [Outcome(log=["lost"], exit_code=137), Outcome(exit_code=None)],
        "*-worker-0": Outcome(log=["step 1"], exit_code=None),
    }
    with TrainingOperator(cluster, namespace), Kubelet(cluster, namespace, run) as kubelet:
        create(cluster, namespace, pytorch_job("good", cleanPodPolicy="Running"))
        until(lambda: "Restarting" in jobs("good") or "Running" in jobs("good"))
        master: Any = until(lambda: _running(cluster, namespace, "good-master-0"))
        until(lambda: _running(cluster, namespace, "good-worker-0"))
        environment = {e.name: e.value for e in master.spec.containers[0].env}
        assert environment["PET_MASTER_ADDR"] == "good-master-0"
        assert environment["PET_NNODES"] == environment["WORLD_SIZE"] == "2"
        labels = master.metadata.labels
        assert labels["training.kubeflow.org/job-role"] == "master"
        services: Any = cluster.core.list_namespaced_service(
            namespace, label_selector="training.kubeflow.org/job-name=good"
        )
        assert {s.metadata.name for s in services.items} == {"good-master-0", "good-worker-0"}
        assert {s.spec.cluster_ip for s in services.items} == {"None"}
        log = cluster.core.read_namespaced_pod_log("good-worker-0", namespace)
        assert log == "step 1\n"
        kubelet.finish("good-master-0")
        until(lambda: "Succeeded" in jobs("good"))
        # Pods that still run are deleted, ended ones stay to be read.
        until(lambda: cast_list(cluster.core.list_namespaced_pod(namespace)) == {"good-master-0"})


def _running(cluster: Cluster, namespace: str, name: str) -> Any:
    try:
        found: Any = cluster.core.read_namespaced_pod(name, namespace)
    except ApiException as error:
        if error.status != 404:
            raise
        return None
    return found if found.status.phase == "Running" else None


def test_a_training_job_fails(
    cluster: Cluster, namespace: str, jobs: Callable[[str], dict[str, str]]
) -> None:
    run = {
        "bad-master-0": Outcome(log=["ValueError: no"], exit_code=1),
        "late-*": Outcome(exit_code=None),
    }
    with TrainingOperator(cluster, namespace), Kubelet(cluster, namespace, run):
        create(cluster, namespace, pytorch_job("bad"))
        until(lambda: "Failed" in jobs("bad"))
        log = cluster.core.read_namespaced_pod_log("bad-master-0", namespace, tail_lines=1)
        assert log == "ValueError: no\n"
        ended: Any = cluster.core.read_namespaced_pod("bad-master-0", namespace)
        assert ended.status.container_statuses[0].state.terminated.exit_code == 1
        create(cluster, namespace, pytorch_job("late", activeDeadlineSeconds=1))
        until(lambda: {"Running", "Failed"} & set(jobs("late")))
        time.sleep(1.5)
        # The operator looks at a job when something about it changes, not at its deadline.
        cluster.custom.patch_namespaced_custom_object(
            *JOBS, namespace, "pytorchjobs", "late", {"metadata": {"annotations": {"a": "b"}}}
        )
        assert "deadline" in until(lambda: jobs("late").get("Failed"))


def test_a_suspended_job_has_no_pods(
    cluster: Cluster, namespace: str, jobs: Callable[[str], dict[str, str]]
) -> None:
    place = (*JOBS, namespace, "pytorchjobs", "queued")
    with TrainingOperator(cluster, namespace), Kubelet(cluster, namespace):
        create(cluster, namespace, pytorch_job("queued", suspend=True))
        until(lambda: "Suspended" in jobs("queued"))
        assert cast_list(cluster.core.list_namespaced_pod(namespace)) == set()
        cluster.custom.patch_namespaced_custom_object(
            *place, {"spec": {"runPolicy": {"suspend": False}}}
        )
        until(lambda: "Succeeded" in jobs("queued"))


def test_pods_run_their_own_commands(
    cluster: Cluster, namespace: str, jobs: Callable[[str], dict[str, str]], tmp_path: Path
) -> None:
    (tmp_path / "volume").mkdir()
    command = (
        "echo $PET_NODE_RANK at $PET_MASTER_ADDR > /mnt/run/rank-$PET_NODE_RANK;"
        " until test -e /mnt/run/go; do sleep 0.1; done"
    )
    mounts = {"/mnt/run": tmp_path / "volume"}
    with (
        TrainingOperator(cluster, namespace),
        Kubelet(cluster, namespace, processes=True, mounts=mounts) as kubelet,
    ):
        create(cluster, namespace, pytorch_job("real", command=command))
        written = tmp_path / "volume/rank-1"
        until(lambda: written.exists() and written.read_text())
        assert written.read_text() == "1 at 127.0.0.1\n"
        first: Any = until(lambda: _running(cluster, namespace, "real-worker-0"))
        kubelet.kill("real-worker-0")

        def replaced() -> bool:
            now = _running(cluster, namespace, "real-worker-0")
            return now is not None and now.metadata.uid != first.metadata.uid

        until(replaced)
        (tmp_path / "volume/go").touch()
        until(lambda: "Succeeded" in jobs("real"))
