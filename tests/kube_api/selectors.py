"""Label and field selectors, as query strings write them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from kube_api.status import ApiError

Object = Mapping[str, Any]
Match = Callable[[Object], bool]

# Fields that the real server can select by, beyond metadata.name and metadata.namespace.
_FIELDS: dict[str, frozenset[str]] = {
    "pods": frozenset({
        "spec.nodeName", "spec.restartPolicy", "spec.serviceAccountName", "status.phase",
        "status.podIP",
    }),
    "events": frozenset({
        "involvedObject.kind", "involvedObject.namespace", "involvedObject.name",
        "involvedObject.uid", "involvedObject.apiVersion", "reason", "type", "source",
    }),
    "namespaces": frozenset({"status.phase"}),
    "secrets": frozenset({"type"}),
    "jobs": frozenset({"status.successful"}),
}  # fmt: skip


def by_labels(selector: str) -> Match:
    """`a=b,c!=d,e in (f,g),h notin (i),j,!k` as a predicate.

    Raises:
        ApiError: 400, the selector cannot be read.
    """
    tests = [_requirement(part.strip()) for part in _split(selector) if part.strip()]

    def matches(item: Object) -> bool:
        labels = item.get("metadata", {}).get("labels") or {}
        return all(test(labels) for test in tests)

    return matches


def by_fields(selector: str, plural: str) -> Match:
    """`metadata.name=x,status.phase!=Running` as a predicate.

    Raises:
        ApiError: 400, a field that this kind cannot be selected by.
    """
    tests: list[tuple[str, bool, str]] = []
    for part in filter(None, (p.strip() for p in selector.split(","))):
        found = re.fullmatch(r"([^=!]+?)\s*(==|=|!=)\s*(.*)", part)
        if not found:
            raise ApiError(400, f"invalid field selector: {part!r}")
        name, sign, value = found.groups()
        if name not in _FIELDS.get(plural, ()) and name not in (
            "metadata.name",
            "metadata.namespace",
        ):
            raise ApiError(400, f'field label not supported: "{name}"')
        tests.append((name, sign != "!=", value))

    def matches(item: Object) -> bool:
        return all((str(_at(item, name)) == value) is wanted for name, wanted, value in tests)

    return matches


def single_name(selector: str) -> str:
    """The name that `metadata.name=NAME` pins a list to; empty where it does not."""
    found = re.search(r"(?:^|,)metadata\.name==?([^,]+)", selector)
    return found.group(1) if found else ""


def _at(item: Any, path: str) -> Any:
    for name in path.split("."):
        item = item.get(name, "") if isinstance(item, Mapping) else ""
    return item


def _split(selector: str) -> list[str]:
    """Parts between commas that stand outside parentheses."""
    return re.split(r",(?![^()]*\))", selector)


def _requirement(part: str) -> Callable[[Mapping[str, str]], bool]:
    if found := re.fullmatch(r"(\S+)\s+(in|notin)\s+\(([^()]*)\)", part):
        key, word, listed = found.groups()
        values = {value.strip() for value in listed.split(",")}
        if word == "in":
            return lambda labels: key in labels and labels[key] in values
        return lambda labels: labels.get(key) not in values
    if found := re.fullmatch(r"([^\s=!]+)\s*(==|=|!=)\s*(\S*)", part):
        key, sign, value = found.groups()
        if sign == "!=":
            return lambda labels: labels.get(key) != value
        return lambda labels: labels.get(key) == value
    if found := re.fullmatch(r"(!?)\s*([^\s=!()]+)", part):
        absent, key = found.groups()
        return lambda labels: (key in labels) is not bool(absent)
    raise ApiError(400, f"unable to parse requirement: {part!r}")
