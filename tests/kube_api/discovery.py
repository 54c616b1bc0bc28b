"""What clients ask before they ask anything else: groups, versions, kinds, parameters."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from kube_api.resources import REVIEWS, VERSION, Resource
from kube_api.status import ApiError

_VERBS = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")
_SUBRESOURCE_VERBS = {
    "log": ("get",),
    "binding": ("create",),
    "eviction": ("create",),
    "token": ("create",),
    "finalize": ("update",),
}
_STRICT = {
    "name": "fieldValidation",
    "in": "query",
    "schema": {"type": "string", "uniqueItems": True},
}


def answer(parts: list[str], resources: Iterable[Resource]) -> dict[str, Any]:
    """The document at a discovery path, split at its slashes.

    Raises:
        ApiError: 404, nothing is served there.
    """
    served = list(resources)
    match parts:
        case ["version"]:
            major, minor, _ = VERSION.split(".")
            return {"major": major, "minor": minor, "gitVersion": f"v{VERSION}"}
        case ["api"]:
            return {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []}
        case ["apis"]:
            groups = sorted({r.group for r in served if r.group})
            listed = [_group(group, served) for group in groups]
            return {"kind": "APIGroupList", "apiVersion": "v1", "groups": listed}
        case ["api", "v1"]:
            return _resource_list("", "v1", served)
        case ["apis", group] if any(r.group == group for r in served):
            return {"kind": "APIGroup", "apiVersion": "v1", **_group(group, served)}
        case ["apis", group, version] if any(
            (r.group, r.version) == (group, version) for r in served
        ):
            return _resource_list(group, version, served)
        case ["openapi", "v3"]:
            paths = {path: {"serverRelativeURL": f"/openapi/v3/{path}"} for path in _paths(served)}
            return {"paths": paths}
        case ["openapi", "v3", *path] if "/".join(path) in _paths(served):
            return _openapi("/".join(path), served)
    raise ApiError(404, "the server could not find the requested resource")


def _versions(group: str, served: list[Resource]) -> list[str]:
    return list(dict.fromkeys(r.version for r in served if r.group == group))


def _group(group: str, served: list[Resource]) -> dict[str, Any]:
    versions = [
        {"groupVersion": f"{group}/{version}", "version": version}
        for version in _versions(group, served)
    ]
    return {"name": group, "versions": versions, "preferredVersion": versions[0]}


def _resource_list(group: str, version: str, served: list[Resource]) -> dict[str, Any]:
    rows: list[dict[str, Any]] = []
    for resource in served:
        if (resource.group, resource.version) != (group, version):
            continue
        review = resource.plural in REVIEWS
        row = {"name": resource.plural, "singularName": resource.kind.lower(),
               "namespaced": resource.namespaced, "kind": resource.kind,
               "verbs": ["create"] if review else list(_VERBS)}  # fmt: skip
        if resource.short_names:
            row["shortNames"] = list(resource.short_names)
        if resource.categories:
            row["categories"] = list(resource.categories)
        rows.append(row)
        for sub in sorted(resource.subresources):
            verbs = _SUBRESOURCE_VERBS.get(sub, ("get", "patch", "update"))
            rows.append({"name": f"{resource.plural}/{sub}", "singularName": "", "verbs":
                         list(verbs), "namespaced": resource.namespaced,
                         "kind": resource.kind})  # fmt: skip
    where = f"{group}/{version}" if group else version
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": where, "resources": rows}


def _paths(served: list[Resource]) -> list[str]:
    return sorted({_prefix(r) for r in served})


def _prefix(resource: Resource) -> str:
    return f"apis/{resource.api_version}" if resource.group else f"api/{resource.version}"


def _openapi(path: str, served: list[Resource]) -> dict[str, Any]:
    """Just enough for a client to learn that the server checks fields itself."""
    paths = {}
    for resource in served:
        if _prefix(resource) == path:
            scope = "/namespaces/{namespace}" if resource.namespaced else ""
            kind = {"group": resource.group, "version": resource.version, "kind": resource.kind}
            operation = {"parameters": [_STRICT], "x-kubernetes-group-version-kind": kind}
            paths[f"/{path}{scope}/{resource.plural}/{{name}}"] = {"patch": operation}
    info = {"title": "Kubernetes", "version": f"v{VERSION}"}
    return {"openapi": "3.0.0", "info": info, "paths": paths, "components": {"schemas": {}}}
