"""Endpoints that are not plain objects: logs, bindings, tokens, access reviews."""

from __future__ import annotations

import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode

from kube_api import rbac
from kube_api.api import Api
from kube_api.rbac import Attributes
from kube_api.request import Request
from kube_api.status import ApiError, conflict
from kube_api.store import Object
from kube_api.writing import Options

_LOG_VALUES = ("sinceSeconds", "sinceTime", "tailLines", "limitBytes")
_LOG_FLAGS = ("follow", "previous", "timestamps")


def issue_token(api: Api, request: Request) -> Object:
    """Answer a TokenRequest for a service account.

    Raises:
        ApiError: 404, there is no such account.
    """
    account = api.get(request.resource, request.namespace, request.name)
    spec = request.body().get("spec") or {}
    seconds = int(spec.get("expirationSeconds") or 3600)
    until = datetime.now(UTC) + timedelta(seconds=seconds)
    status = {
        "token": api.tokens.issue(account, seconds),
        "expirationTimestamp": until.strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
    return {
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenRequest",
        "metadata": {"name": request.name, "namespace": request.namespace},
        "spec": {"audiences": [], "expirationSeconds": seconds, **spec},
        "status": status,
    }


def review(api: Api, request: Request) -> Object:
    """Answer a SelfSubjectAccessReview or a SubjectAccessReview."""
    body = request.body()
    spec = body.get("spec") or {}
    user = request.user
    if request.resource.plural == "subjectaccessreviews":
        user = rbac.User(spec.get("user", ""), frozenset(spec.get("groups") or ()))
    wanted = spec.get("resourceAttributes") or {}
    asked = Attributes(
        wanted.get("verb", ""), wanted.get("group", ""), wanted.get("resource", ""),
        wanted.get("subresource", ""), wanted.get("namespace", ""), wanted.get("name", ""),
    )  # fmt: skip
    status = {"allowed": rbac.allowed(api.store, user, asked)}
    return {
        "apiVersion": request.resource.api_version,
        "kind": request.resource.kind,
        "metadata": {"creationTimestamp": None},
        "spec": spec,
        "status": status,
    }


def bind(api: Api, request: Request) -> Object:
    """Put a pod on a node, as a scheduler does.

    Raises:
        ApiError: 404, no such pod; 409, it has a node.
    """
    node = request.body()["target"]["name"]
    with api.store.lock:
        pod = api.get(request.resource, request.namespace, request.name)
        if pod["spec"].get("nodeName"):
            why = f"pod {request.name} is already assigned to node {pod['spec']['nodeName']!r}"
            raise conflict("pods/binding", "", request.name, why)
        status = dict(pod.get("status") or {})
        others = [c for c in status.get("conditions") or () if c["type"] != "PodScheduled"]
        status["conditions"] = [*others, {"type": "PodScheduled", "status": "True"}]
        spec = {**pod["spec"], "nodeName": node}
        api.store.put(request.resource, {**pod, "spec": spec, "status": status})
    return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}


def evict(api: Api, request: Request) -> Object:
    """Delete a pod (disruption budgets are not counted)."""
    options = request.body().get("deleteOptions") or {}
    api.delete(request.resource, request.namespace, request.name, options)
    return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}


def rescale(api: Api, request: Request, options: Options) -> Object:
    """Read or change `spec.replicas` through a Scale object."""
    item = api.get(request.resource, request.namespace, request.name)
    if request.attributes.verb in ("update", "patch"):
        replicas = request.body()["spec"]["replicas"]
        new = {**item, "spec": {**item["spec"], "replicas": replicas}}
        item = api.update(request.resource, request.namespace, request.name, new, options)
    meta = item["metadata"]
    kept = {k: meta[k] for k in ("name", "namespace", "uid", "resourceVersion")}
    replicas = item["spec"].get("replicas", 1)
    return {"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": kept,
            "spec": {"replicas": replicas}, "status": {"replicas": replicas}}  # fmt: skip


def log(api: Api, request: Request) -> Iterator[bytes] | None:
    """A container's log, fetched from the kubelet of the pod's node.

    Returns:
        Pieces as they come, or None where the pod has no node yet.

    Raises:
        ApiError: 400, no such container, or it has not started; 404; 500, no kubelet answers.
    """
    pod = api.get(request.resource, request.namespace, request.name)
    names = [c["name"] for c in pod["spec"]["containers"]]
    names += [c["name"] for c in pod["spec"].get("initContainers") or ()]
    container = request.query.get("container") or ""
    if not container and len(pod["spec"]["containers"]) > 1:
        text = f"a container name must be specified for pod {request.name}, choose one of: {names}"
        raise ApiError(400, text)
    container = container or names[0]
    if container not in names:
        raise ApiError(400, f"container {container} is not valid for pod {request.name}")
    node_name = pod["spec"].get("nodeName")
    if not node_name:
        return None
    node = api.store.find(("", "nodes"), "", node_name)
    if node is None:
        raise ApiError(404, f'nodes "{node_name}" not found')
    options = {name: request.query[name] for name in _LOG_VALUES if name in request.query}
    options |= {name: "true" for name in _LOG_FLAGS if request.flag(name)}
    path = f"/containerLogs/{request.namespace}/{request.name}/{container}?{urlencode(options)}"
    return _fetch(_kubelet(node) + path)


def _kubelet(node: Object) -> str:
    status = node.get("status") or {}
    addresses = [a["address"] for a in status.get("addresses") or ()]
    port = status.get("daemonEndpoints", {}).get("kubeletEndpoint", {}).get("Port")
    if not addresses or not port:
        raise ApiError(500, f"no preferred addresses found of node {node['metadata']['name']}")
    return f"https://{addresses[0]}:{port}"


def _fetch(url: str) -> Iterator[bytes]:
    # As the real server without --kubelet-certificate-authority.
    unverified = ssl._create_unverified_context()
    try:
        answer: Any = urllib.request.urlopen(url, context=unverified, timeout=600)
    except urllib.error.HTTPError as error:
        raise ApiError(error.code, error.read().decode().strip()) from error
    except OSError as error:
        raise ApiError(500, f'Get "{url}": {error}') from error

    def pieces() -> Iterator[bytes]:
        with closing(answer):
            while piece := answer.read1(65536):
                yield piece

    return pieces()
