"""What stands between a valid object and the store: namespaces, accounts, pod security."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import Any

from kube_api.pod_security import violations
from kube_api.resources import Resource
from kube_api.status import forbidden, not_found
from kube_api.store import Object, Store

ENFORCE = "pod-security.kubernetes.io/enforce"
WARN = "pod-security.kubernetes.io/warn"


def namespace_is_open(store: Store, resource: Resource, namespace: str, name: str) -> None:
    """Refuse to create in a namespace that is missing or on its way out.

    Raises:
        ApiError: 404 or 403.
    """
    if not resource.namespaced:
        return
    found = store.find(("", "namespaces"), "", namespace)
    if found is None:
        raise not_found("namespaces", "", namespace)
    if found["metadata"].get("deletionTimestamp"):
        why = (
            f"unable to create new content in namespace {namespace} because it is being terminated"
        )
        raise forbidden(resource.plural, resource.group, name, why)


def defaulted(item: Object, resource: Resource) -> Object:
    """A built-in object with the defaults that its readers rely on."""
    item = dict(item)
    match resource.plural:
        case "pods":
            item["spec"] = _pod_defaults(item["spec"])
            item["status"] = {"phase": "Pending", "qosClass": _quality(item["spec"])}
        case "namespaces":
            meta = item["metadata"]
            labels = {**(meta.get("labels") or {}), "kubernetes.io/metadata.name": meta["name"]}
            item["metadata"] = {**meta, "labels": labels}
            item["spec"] = {"finalizers": ["kubernetes"]}
            item["status"] = {"phase": "Active"}
        case "persistentvolumeclaims":
            item["spec"] = {"volumeMode": "Filesystem", **item["spec"]}
            item["status"] = {"phase": "Pending"}
        case "deployments":
            item["spec"] = {"replicas": 1, **item["spec"]}
        case "jobs":
            item["spec"] = {"parallelism": 1, "completions": 1, "backoffLimit": 6, **item["spec"]}
        case "services":
            item["spec"] = _service_defaults(item.get("spec") or {}, item["metadata"])
        case "secrets":
            item = {"type": "Opaque", **item}
    return item


def admit(store: Store, item: Object, resource: Resource, warnings: list[str]) -> None:
    """Refuse what admission plugins refuse.

    Args:
        warnings: receives what the namespace only warns of.

    Raises:
        ApiError: 403.
    """
    namespace = item["metadata"].get("namespace", "")
    if resource.key == ("", "pods"):
        _account_exists(store, item)
        problems = _violations(store, namespace, ENFORCE, item["spec"])
        if problems:
            why = f'violates PodSecurity "restricted:latest": {", ".join(problems)}'
            raise forbidden("pods", "", item["metadata"]["name"], why)
    template = (item.get("spec") or {}).get("template")
    if not resource.custom and isinstance(template, Mapping) and "spec" in template:
        problems = _violations(store, namespace, WARN, template["spec"])
        if problems:
            warnings.append(f'would violate PodSecurity "restricted:latest": {", ".join(problems)}')


def _violations(store: Store, namespace: str, label: str, spec: Mapping[str, Any]) -> list[str]:
    found = store.find(("", "namespaces"), "", namespace) or {"metadata": {}}
    level = (found["metadata"].get("labels") or {}).get(label)
    return violations(spec) if level == "restricted" else []


def _account_exists(store: Store, pod: Object) -> None:
    namespace, account = pod["metadata"]["namespace"], pod["spec"]["serviceAccountName"]
    if store.find(("", "serviceaccounts"), namespace, account) is None:
        why = (
            f"error looking up service account {namespace}/{account}: serviceaccount"
            f' "{account}" not found'
        )
        raise forbidden("pods", "", pod["metadata"]["name"], why)


def _pod_defaults(spec: Mapping[str, Any]) -> dict[str, Any]:
    account = spec.get("serviceAccountName") or spec.get("serviceAccount") or "default"
    return {
        "restartPolicy": "Always",
        "terminationGracePeriodSeconds": 30,
        "dnsPolicy": "ClusterFirst",
        "schedulerName": "default-scheduler",
        "enableServiceLinks": True,
        "securityContext": {},
        **spec,
        "serviceAccountName": account,
        "serviceAccount": account,
        "containers": [_container_defaults(c) for c in spec["containers"]],
    }


def _container_defaults(container: Mapping[str, Any]) -> dict[str, Any]:
    tag = container.get("image", "").rpartition("/")[2].partition(":")[2]
    amounts = dict(container.get("resources") or {})
    if "limits" in amounts:
        amounts["requests"] = {**amounts["limits"], **(amounts.get("requests") or {})}
    return {
        "imagePullPolicy": "Always" if tag in ("", "latest") else "IfNotPresent",
        "terminationMessagePath": "/dev/termination-log",
        "terminationMessagePolicy": "File",
        **container,
        "resources": amounts,
    }


def _quality(spec: Mapping[str, Any]) -> str:
    amounts = [c.get("resources") or {} for c in spec["containers"]]
    if not any(a.get("requests") or a.get("limits") for a in amounts):
        return "BestEffort"
    same = all(
        a.get("limits")
        and {"cpu", "memory"} <= set(a["limits"])
        and a.get("requests") == a["limits"]
        for a in amounts
    )
    return "Guaranteed" if same else "Burstable"


def _service_defaults(spec: Mapping[str, Any], meta: Mapping[str, Any]) -> dict[str, Any]:
    ports = [
        {"protocol": "TCP", "targetPort": port["port"], **port} for port in spec.get("ports") or ()
    ]
    # Any address of the service range does: nothing is routed.
    address = str(ipaddress.ip_address("10.0.0.2") + hash(meta["name"]) % 250)
    filled = {"type": "ClusterIP", "sessionAffinity": "None", "clusterIP": address, **spec}
    filled.setdefault("clusterIPs", [filled["clusterIP"]])
    return {**filled, **({"ports": ports} if ports else {})}
