"""Rules that no schema states: names, labels, and how parts of built-in kinds must agree."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from kube_api.resources import Resource
from kube_api.status import Cause

Fields = Mapping[str, Any]

_LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN = rf"{_LABEL}(\.{_LABEL})*"
_VALUE = r"([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?"
_QUANTITY = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([KMGTPE]i|[numkMGTPE]|[eE][+-]?\d+)?")
_SHORT = ("services", "namespaces")
_FREE = ("roles", "rolebindings", "clusterroles", "clusterrolebindings", "events")


def broken(item: Fields, resource: Resource) -> Iterator[Cause]:
    """Every such rule that an object breaks."""
    yield from _metadata(item["metadata"], resource)
    if resource.custom:
        return
    template = _pod_template(item, resource)
    if template is not None:
        where, pod = template
        yield from _pod(pod, where)
    if resource.plural in ("deployments", "statefulsets", "daemonsets", "replicasets"):
        yield from _selector(item["spec"])
    if resource.plural == "jobs":
        policy = item["spec"].get("template", {}).get("spec", {}).get("restartPolicy", "Always")
        if policy not in ("OnFailure", "Never"):
            text = f'Unsupported value: "{policy}": supported values: "OnFailure", "Never"'
            yield Cause("spec.template.spec.restartPolicy", text, "FieldValueNotSupported")
    if resource.plural == "services":
        yield from _service(item.get("spec", {}))


def bad_name(name: str, plural: str) -> str:
    """Why a name is not allowed; empty where it is."""
    if plural in _FREE:
        return "" if name and "/" not in name and "%" not in name else "may not contain '/' or '%'"
    short = plural in _SHORT
    if len(name) > (63 if short else 253):
        return f"must be no more than {63 if short else 253} characters"
    pattern = r"[a-z]([-a-z0-9]*[a-z0-9])?" if plural == "services" else (
        _LABEL if short else _SUBDOMAIN
    )  # fmt: skip
    if not re.fullmatch(pattern, name):
        rule = "label" if short else "subdomain"
        return f"a lowercase RFC 1123 {rule} must match the regex '{pattern}'"
    return ""


def _metadata(meta: Fields, resource: Resource) -> Iterator[Cause]:
    problem = bad_name(meta["name"], resource.plural)
    if problem:
        yield Cause("metadata.name", f'Invalid value: "{meta["name"]}": {problem}')
    for field in ("labels", "annotations"):
        for key, value in (meta.get(field) or {}).items():
            prefix, slash, short = key.rpartition("/")
            good_prefix = not slash or re.fullmatch(_SUBDOMAIN, prefix)
            if not short or len(short) > 63 or not re.fullmatch(_VALUE, short) or not good_prefix:
                yield Cause(f"metadata.{field}", f'Invalid value: "{key}": not a qualified name')
            if field == "labels" and (len(value) > 63 or not re.fullmatch(_VALUE, value)):
                text = f'Invalid value: "{value}": a valid label must match the regex {_VALUE!r}'
                yield Cause("metadata.labels", f"{text} and have at most 63 characters")


def _pod_template(item: Fields, resource: Resource) -> tuple[str, Fields] | None:
    match resource.plural:
        case "pods":
            return "spec", item["spec"]
        case "deployments" | "replicasets" | "statefulsets" | "daemonsets" | "jobs":
            return "spec.template.spec", item["spec"].get("template", {}).get("spec", {})
        case "cronjobs":
            spec = item["spec"]["jobTemplate"]["spec"]["template"]["spec"]
            return "spec.jobTemplate.spec.template.spec", spec
    return None


def _pod(spec: Fields, where: str) -> Iterator[Cause]:
    if not spec.get("containers"):
        yield Cause(f"{where}.containers", "Required value", "FieldValueRequired")
    volumes = {volume["name"] for volume in spec.get("volumes") or ()}
    for field in ("initContainers", "containers"):
        for place, container in enumerate(spec.get(field) or ()):
            at = f"{where}.{field}[{place}]"
            yield from _container(container, at, volumes)


def _container(container: Fields, at: str, volumes: set[str]) -> Iterator[Cause]:
    name = container["name"]
    if not re.fullmatch(_LABEL, name) or len(name) > 63:
        yield Cause(f"{at}.name", f'Invalid value: "{name}": not a lowercase RFC 1123 label')
    if not container.get("image"):
        yield Cause(f"{at}.image", "Required value", "FieldValueRequired")
    for place, mount in enumerate(container.get("volumeMounts") or ()):
        if mount["name"] not in volumes:
            text = f'Not found: "{mount["name"]}"'
            yield Cause(f"{at}.volumeMounts[{place}].name", text, "FieldValueNotFound")
    amounts = container.get("resources") or {}
    for kind in ("requests", "limits"):
        for resource, amount in (amounts.get(kind) or {}).items():
            if not _QUANTITY.fullmatch(str(amount)):
                text = f'Invalid value: "{amount}": not a quantity'
                yield Cause(f"{at}.resources.{kind}[{resource}]", text)
    requests, limits = amounts.get("requests") or {}, amounts.get("limits") or {}
    for resource in limits:
        whole = "/" in resource  # extended resources cannot be overcommitted
        if whole and resource in requests and str(requests[resource]) != str(limits[resource]):
            text = f'Invalid value: "{requests[resource]}": must be equal to {resource} limit'
            yield Cause(f"{at}.resources.requests", text)


def _selector(spec: Fields) -> Iterator[Cause]:
    wanted = (spec.get("selector") or {}).get("matchLabels") or {}
    labels = (spec.get("template", {}).get("metadata") or {}).get("labels") or {}
    if any(labels.get(key) != value for key, value in wanted.items()):
        text = f"Invalid value: {labels}: `selector` does not match template `labels`"
        yield Cause("spec.template.metadata.labels", text)


def _service(spec: Fields) -> Iterator[Cause]:
    headless = spec.get("clusterIP") == "None" or spec.get("type") == "ExternalName"
    ports = spec.get("ports") or ()
    if not ports and not headless:
        yield Cause("spec.ports", "Required value", "FieldValueRequired")
    for place, port in enumerate(ports):
        if len(ports) > 1 and not port.get("name"):
            yield Cause(f"spec.ports[{place}].name", "Required value", "FieldValueRequired")
