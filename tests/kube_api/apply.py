"""Server-side apply: who owns which field, what conflicts, what a manager's new intent changes.

A path is a tuple of the segments that `fieldsV1` writes: `f:spec`, `k:{"name":"main"}`, `v:"x"`.
Owned are leaves, elements of keyed lists, and values that have one owner as a whole.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from kube_api.schema import ANYTHING, Node
from kube_api.status import ApiError

Path = tuple[str, ...]

# What nobody owns: identity, and what the server itself writes.
_UNOWNED = frozenset(
    {("f:apiVersion",), ("f:kind",)}
    | {
        ("f:metadata", f"f:{name}")
        for name in (
            "name", "namespace", "uid", "resourceVersion", "generation", "creationTimestamp",
            "deletionTimestamp", "deletionGracePeriodSeconds", "managedFields", "selfLink",
        )
    }
)  # fmt: skip


@dataclass(frozen=True)
class Manager:
    """Who wrote: a name, how (`Apply` or `Update`), and to which subresource."""

    name: str
    operation: str
    subresource: str = ""


Owners = dict[Manager, frozenset[Path]]


def leaves(value: Mapping[str, Any], node: Node) -> dict[Path, Any]:
    """Every path of an object that can be owned, with its value.

    Raises:
        ApiError: 500, two elements of a keyed list have one key (as the real server answers).
    """
    found = dict(_walk(value, node, ()))
    return {path: inner for path, inner in found.items() if not _server_writes(path)}


def _server_writes(path: Path) -> bool:
    return path[:1] in _UNOWNED or path[:2] in _UNOWNED


def _walk(value: Any, node: Node, path: Path) -> Iterator[tuple[Path, Any]]:
    if isinstance(value, dict) and value and not node.atomic:
        for name, inner in value.items():
            yield from _walk(inner, node.child(name) or Node(ANYTHING), (*path, f"f:{name}"))
    elif isinstance(value, list) and value and node.list_type in ("map", "set"):
        seen: set[str] = set()
        for element in value:
            segment = _segment(element, node)
            if segment in seen:
                where = ".".join(part[2:] for part in path)
                raise ApiError(500, f".{where}: duplicate entries for key {segment[2:]}", reason="")
            seen.add(segment)
            yield (*path, segment), None
            if node.list_type == "map":
                yield from _walk(element, node.items, (*path, segment))
    elif path:
        yield path, value


def _segment(element: Any, node: Node) -> str:
    if node.list_type == "map":
        return "k:" + json.dumps(dict(node.key_of(element)), separators=(",", ":"), sort_keys=True)
    return "v:" + json.dumps(element, separators=(",", ":"), sort_keys=True)


def merged(live: Any, applied: Any, node: Node) -> Any:
    """The live value with a manager's intent laid over it; nothing is removed."""
    if isinstance(applied, dict) and isinstance(live, dict) and not node.atomic:
        new = dict(live)
        for name, inner in applied.items():
            child = node.child(name) or Node(ANYTHING)
            new[name] = merged(live[name], inner, child) if name in live else inner
        return new
    if isinstance(applied, list) and isinstance(live, list) and node.list_type in ("map", "set"):
        by_key = {_segment(element, node): element for element in live}
        for element in applied:
            key = _segment(element, node)
            keyed = node.list_type == "map" and key in by_key
            by_key[key] = merged(by_key[key], element, node.items) if keyed else element
        return list(by_key.values())
    return applied


def without(value: Any, node: Node, paths: Iterable[Path]) -> Any:
    """A copy with the paths removed, and maps that this emptied."""
    wanted = {path for path in paths if path}
    if not wanted:
        return value
    if isinstance(value, dict):
        return _without_fields(value, node, wanted)
    if isinstance(value, list):
        kept = []
        for element in value:
            segment = _segment(element, node)
            if (segment,) not in wanted:
                inner = [p[1:] for p in wanted if p[0] == segment]
                kept.append(without(element, node.items, inner))
        return kept
    return value


def _without_fields(value: dict[str, Any], node: Node, wanted: set[Path]) -> dict[str, Any]:
    kept: dict[str, Any] = {}
    for name, inner in value.items():
        if (f"f:{name}",) in wanted:
            continue
        deeper = [p[1:] for p in wanted if p[0] == f"f:{name}"]
        new = without(inner, node.child(name) or Node(ANYTHING), deeper)
        if new or not inner:
            kept[name] = new
    return kept


def applied_to(
    live: dict[str, Any] | None,
    intent: dict[str, Any],
    node: Node,
    manager: Manager,
    owners: Owners,
    force: bool,
) -> tuple[dict[str, Any], Owners]:
    """What server-side apply makes of an object.

    Args:
        live: the object as it is, None where it is to be created.
        intent: all that the manager wants to own.
        force: take fields from other managers instead of refusing.

    Returns:
        The new object, and who owns what now.

    Raises:
        ApiError: 409, another manager owns a field with another value.
    """
    mine = leaves(intent, node)
    now = leaves(live, node) if live else {}
    others = {who: paths for who, paths in owners.items() if who != manager}
    taken = {
        who: sorted(p for p in paths if _clashes(p, mine, now)) for who, paths in others.items()
    }
    taken = {who: paths for who, paths in taken.items() if paths}
    if taken and not force:
        raise _conflict(taken)
    others = {who: paths - set(taken.get(who, ())) for who, paths in others.items()}
    new = merged(live, intent, node) if live else intent
    kept = frozenset(mine).union(*others.values())
    dropped = owners.get(manager, frozenset()) - kept
    # An element stays as long as anyone owns a part of it.
    dropped = {p for p in dropped if not any(k[: len(p)] == p for k in kept)}
    new = without(new, node, dropped)
    return new, {**{w: p for w, p in others.items() if p}, manager: frozenset(mine)}


def _clashes(path: Path, mine: Mapping[Path, Any], now: Mapping[Path, Any]) -> bool:
    """Whether an intent changes what is owned at a path, or puts another shape in its place."""
    if path in mine:
        return now.get(path) != mine[path]
    under = any(
        path[:depth] in mine and not _holds(mine[path[:depth]], path[depth])
        for depth in range(1, len(path))
    )
    over = path in now and any(
        len(each) > len(path)
        and each[: len(path)] == path
        and not _holds(now[path], each[len(path)])
        for each in mine
    )
    return under or over


def _holds(value: Any, segment: str) -> bool:
    """Whether such a part may lie in a value: None stands for a keyed list's element."""
    if segment.startswith("f:"):
        return value is None or value == {}
    return value == []


def updated(
    before: dict[str, Any], after: dict[str, Any], node: Node, manager: Manager, owners: Owners
) -> Owners:
    """Who owns what after a plain write: the writer owns what it changed."""
    old, new = leaves(before, node), leaves(after, node)
    changed = frozenset(p for p, value in new.items() if p not in old or old[p] != value)
    gone = frozenset(old) - frozenset(new)
    left = {who: paths - gone - (changed if who != manager else set()) for who, paths in
            owners.items()}  # fmt: skip
    left[manager] = left.get(manager, frozenset()) | changed
    return {who: paths for who, paths in left.items() if paths}


def _conflict(taken: Mapping[Manager, list[Path]]) -> ApiError:
    causes = [
        {
            "reason": "FieldManagerConflict",
            "message": f'conflict with "{who.name}"',
            "field": _readable(path),
        }
        for who, paths in taken.items()
        for path in paths
    ]
    many = f"{len(causes)} conflict{'s' if len(causes) > 1 else ''}"
    listed = ", ".join(f"{cause['message']}: {cause['field']}" for cause in causes)
    return ApiError(409, f"Apply failed with {many}: {listed}", details={"causes": causes})


def _readable(path: Path) -> str:
    text = ""
    for segment in path:
        kind, value = segment[0], segment[2:]
        if kind == "f":
            text += f".{value}"
        elif kind == "k":
            keys = ",".join(f"{k}={json.dumps(v)}" for k, v in json.loads(value).items())
            text += f"[{keys}]"
        else:
            text += f"[={value}]"
    return text


def read_owners(managed: Iterable[Mapping[str, Any]]) -> Owners:
    """The owners that `metadata.managedFields` records."""
    owners: Owners = {}
    for entry in managed:
        manager = Manager(entry["manager"], entry["operation"], entry.get("subresource", ""))
        owners[manager] = frozenset(_paths(entry.get("fieldsV1", {}), ()))
    return owners


def write_owners(owners: Owners, api_version: str, time: str) -> list[dict[str, Any]]:
    """`metadata.managedFields` of these owners."""
    entries = []
    for manager, paths in sorted(
        owners.items(), key=lambda item: (item[0].operation, item[0].name)
    ):
        entry = {
            "manager": manager.name,
            "operation": manager.operation,
            "apiVersion": api_version,
            "time": time,
            "fieldsType": "FieldsV1",
            "fieldsV1": _tree(paths),
        }
        entries.append(
            {**entry, "subresource": manager.subresource} if manager.subresource else entry
        )
    return entries


def _tree(paths: Iterable[Path]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    owned = set(paths)
    for path in sorted(owned):
        here = tree
        for depth, segment in enumerate(path, 1):
            here = here.setdefault(segment, {})
            if depth < len(path) and path[:depth] in owned:
                here.setdefault(".", {})
    return tree


def _paths(tree: Mapping[str, Any], path: Path) -> Iterator[Path]:
    if path and (not tree or "." in tree):
        yield path
    for segment, inner in tree.items():
        if segment != ".":
            yield from _paths(inner, (*path, segment))
