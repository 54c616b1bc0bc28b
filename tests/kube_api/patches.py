"""JSON Patch (RFC 6902), JSON Merge Patch (RFC 7386) and strategic merge patches."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from kube_api.schema import Node
from kube_api.status import ApiError


def merge(old: Any, patch: Any) -> Any:
    """A JSON Merge Patch: maps merge, null removes, everything else replaces."""
    if not isinstance(patch, dict):
        return patch
    new = dict(old) if isinstance(old, dict) else {}
    for name, value in patch.items():
        if value is None:
            new.pop(name, None)
        else:
            new[name] = merge(new.get(name), value)
    return new


def strategic(old: Any, patch: Any, node: Node) -> Any:
    """A strategic merge patch: as a merge patch, but keyed lists merge element by element.

    Of the directives, `$patch: delete` and `$patch: replace` are understood.
    """
    if not isinstance(patch, dict):
        return patch
    directive = patch.get("$patch")
    if directive == "replace" or not isinstance(old, dict):
        old = {}
    new = dict(old)
    for name, value in patch.items():
        if name.startswith("$"):
            continue
        child = node.child(name) or Node({})
        if value is None:
            new.pop(name, None)
        elif isinstance(value, list) and child.merge_key:
            new[name] = _strategic_list(new.get(name) or [], value, child, child.merge_key)
        else:
            new[name] = strategic(new.get(name), value, child)
    return new


def _strategic_list(old: Sequence[Any], patch: Sequence[Any], node: Node, key: str) -> list[Any]:
    if any(isinstance(e, dict) and e.get("$patch") == "replace" for e in patch):
        return [e for e in patch if e.get("$patch") != "replace"]
    new = list(old)
    for element in patch:
        where = next((i for i, e in enumerate(new) if e.get(key) == element.get(key)), None)
        if element.get("$patch") == "delete":
            new = [e for e in new if e.get(key) != element.get(key)]
        elif where is None:
            new.append(strategic({}, element, node.items))
        else:
            new[where] = strategic(new[where], element, node.items)
    return new


def json_patch(old: Any, operations: Sequence[Mapping[str, Any]]) -> Any:
    """A JSON Patch.

    Raises:
        ApiError: 422, an operation does not fit the object, or its `test` fails.
    """
    root = {"": copy.deepcopy(old)}
    for operation in operations:
        try:
            _operate(root, operation)
        except (KeyError, IndexError, TypeError, ValueError) as error:
            text = f"the server rejected our request due to an error in our request: {error!r}"
            raise ApiError(422, text) from error
    return root[""]


def _operate(root: dict[str, Any], operation: Mapping[str, Any]) -> None:
    parent, last = _locate(root, operation["path"])
    match operation["op"]:
        case "add":
            _put(parent, last, copy.deepcopy(operation["value"]), insert=True)
        case "replace":
            _take(parent, last)
            _put(parent, last, copy.deepcopy(operation["value"]), insert=True)
        case "remove":
            _take(parent, last)
        case "move":
            value = _take(*_locate(root, operation["from"]))
            _put(*_locate(root, operation["path"]), value, insert=True)
        case "copy":
            holder, name = _locate(root, operation["from"])
            value = copy.deepcopy(holder[int(name) if isinstance(holder, list) else name])
            _put(parent, last, value, insert=True)
        case "test":
            found = parent[int(last)] if isinstance(parent, list) else parent.get(last)
            if found != operation["value"]:
                raise ValueError(f"testing path {operation['path']} failed")
        case other:
            raise ValueError(f"unknown operation {other!r}")


def _locate(root: Any, pointer: str) -> tuple[Any, str]:
    """The container that a JSON Pointer's last part lies in, and that part."""
    parts = [p.replace("~1", "/").replace("~0", "~") for p in pointer.split("/")]
    here = root
    for part in parts[:-1]:
        here = here[int(part)] if isinstance(here, list) else here[part]
    return here, parts[-1]


def _put(holder: Any, name: str, value: Any, *, insert: bool) -> None:
    if isinstance(holder, list):
        place = len(holder) if name == "-" else int(name)
        if place > len(holder):
            raise IndexError(f"index {place} is past the end")
        holder.insert(place, value) if insert else holder.__setitem__(place, value)
    else:
        holder[name] = value


def _take(holder: Any, name: str) -> Any:
    return holder.pop(int(name)) if isinstance(holder, list) else holder.pop(name)
