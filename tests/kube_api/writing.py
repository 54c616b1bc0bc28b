"""From a request's body to an object that may be stored."""

from __future__ import annotations

import copy
import secrets
import string
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from kube_api import apply, rules, schema
from kube_api.resources import Resource
from kube_api.status import ApiError, Cause, invalid
from kube_api.store import Object

_NAMES = "".join(sorted(set(string.ascii_lowercase + string.digits) - set("aeiou013l")))


@dataclass
class Options:
    """Query parameters of a write.

    Args:
        validation: `Strict`, `Warn` or `Ignore`: what becomes of unknown fields.
        manager: who writes, for `managedFields`.
        warnings: what the answer will warn of.
    """

    validation: str = "Warn"
    manager: str = "unknown"
    force: bool = False
    dry_run: bool = False
    warnings: list[str] = field(default_factory=list)


def now() -> str:
    """The time as metav1.Time writes it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def decoded(body: Any, resource: Resource, options: Options) -> Object:
    """A body as an object of a kind, unknown fields left out.

    Raises:
        ApiError: 400, it is of another kind, has a field of a wrong type, or, under `Strict`,
            a field that the schema does not name.
    """
    if not isinstance(body, Mapping):
        raise ApiError(400, "the request's body is not a JSON object")
    body = copy.deepcopy(dict(body))
    if not resource.custom:
        body = {"apiVersion": resource.api_version, "kind": resource.kind, **body}
    said = body.get("apiVersion"), body.get("kind")
    if said != (resource.api_version, resource.kind):
        raise ApiError(
            400,
            f"the API version and kind in the data ({said[0]}, {said[1]}) do not match the"
            f" expected ones ({resource.api_version}, {resource.kind})",
        )
    unknown: list[str] = []
    item = schema.pruned(body, resource.schema, "", unknown, nulls=not resource.custom)
    listed = ", ".join(f'unknown field "{path}"' for path in unknown)
    prefix = (
        f'{resource.kind} in version "{resource.version}" cannot be handled as a {resource.kind}: '
    )
    if unknown and options.validation == "Strict":
        raise ApiError(400, f"{prefix}strict decoding error: {listed}")
    if unknown and options.validation == "Warn":
        options.warnings.append(listed)
    if resource.custom:
        item = schema.defaulted(item, resource.schema)
    else:
        for path, wanted, value in schema.wrong_types(item, resource.schema):
            text = f"json: cannot unmarshal {value!r} into field {path} of type {wanted}"
            raise ApiError(400, f"{prefix}{text}")
    item.setdefault("metadata", {})
    return item


def check(item: Object, resource: Resource, before: Object | None = None) -> None:
    """Refuse an object that breaks its schema or the rules of its kind.

    Args:
        before: the object that it replaces; None where it is new.

    Raises:
        ApiError: 422, with every cause.
    """
    causes = [
        Cause(path, f"Invalid value: {value!r}: {path} in body must be of type {wanted}",
              "FieldValueTypeInvalid")
        for path, wanted, value in schema.wrong_types(item, resource.schema)
    ]  # fmt: skip
    causes = causes or [
        *schema.wrong_values(item, resource.schema, before),
        *rules.broken(item, resource),
    ]
    if causes:
        raise invalid(resource.kind, resource.group, item["metadata"]["name"], causes)


def named(item: Object, resource: Resource, namespace: str, name: str = "") -> Object:
    """An object that says which name and namespace it has: those of the request.

    Raises:
        ApiError: 400 where body and request disagree, 422 where there is no name.
    """
    meta = dict(item["metadata"])
    if not meta.get("name") and meta.get("generateName"):
        meta["name"] = meta["generateName"] + "".join(secrets.choice(_NAMES) for _ in range(5))
    if name and meta.setdefault("name", name) != name:
        text = (
            f"the name of the object ({meta['name']}) does not match the name on the URL ({name})"
        )
        raise ApiError(400, text)
    if resource.namespaced and meta.setdefault("namespace", namespace) != namespace:
        text = (
            "the namespace of the provided object does not match the namespace sent on the request"
        )
        raise ApiError(400, text)
    if not resource.namespaced:
        meta.pop("namespace", None)
    if not meta.get("name"):
        cause = Cause("metadata.name", "Required value: name or generateName is required",
                      "FieldValueRequired")  # fmt: skip
        raise invalid(resource.kind, resource.group, "", [cause])
    return {**item, "metadata": meta}


def born(item: Object, resource: Resource) -> Object:
    """An object about to be created: its identity is the server's, its status empty."""
    item = dict(item)
    if "status" in resource.subresources:
        item.pop("status", None)
    meta = dict(item["metadata"])
    for name in ("deletionTimestamp", "deletionGracePeriodSeconds", "managedFields", "selfLink",
                 "resourceVersion"):  # fmt: skip
        meta.pop(name, None)
    meta |= {"uid": str(uuid.uuid4()), "creationTimestamp": now()}
    if "spec" in item or resource.custom:
        meta["generation"] = 1
    return {**item, "metadata": meta}


def replaced(before: Object, item: Object, resource: Resource, subresource: str) -> Object:
    """What an update makes of an object: only the part that its path names changes.

    Raises:
        ApiError: 409, the object is another one; 422, an immutable part differs.
    """
    meta = {k: v for k, v in item["metadata"].items() if k != "managedFields"}
    old = before["metadata"]
    if meta.get("uid", old["uid"]) != old["uid"]:
        text = f"UID in precondition: {meta['uid']}, UID in object meta: {old['uid']}"
        text = f"Precondition failed: {text}"
        raise ApiError(409, text)
    if subresource == "status":
        new = {**before}
        new.pop("status", None)
        return {**new, **({"status": item["status"]} if "status" in item else {})}
    if "status" in resource.subresources:
        item = {**item}
        item.pop("status", None)
        item |= {"status": before["status"]} if "status" in before else {}
    for name in ("uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds",
                 "generation", "managedFields"):  # fmt: skip
        meta.pop(name, None)
        if name in old:
            meta[name] = old[name]
    new = {**item, "metadata": meta}
    if resource.key == ("", "pods"):
        _pod_stays(before, new, resource)
    if _intent(before, resource) != _intent(new, resource) and "generation" in meta:
        meta["generation"] = old["generation"] + 1
    return new


def owned(before: Object | None, item: Object, resource: Resource, options: Options,
          subresource: str) -> Object:  # fmt: skip
    """An object whose `managedFields` tell that the writer changed what it changed."""
    manager = apply.Manager(options.manager, "Update", subresource)
    owners = apply.read_owners((before or item)["metadata"].get("managedFields") or ())
    owners = apply.updated(before or {}, item, resource.schema, manager, owners)
    return stamped(item, owners, resource.api_version)


def stamped(item: Object, owners: apply.Owners, api_version: str) -> Object:
    """An object with its owners written down."""
    managed = apply.write_owners(owners, api_version, now())
    return {**item, "metadata": {**item["metadata"], "managedFields": managed}}


def same(before: Object, item: Object) -> bool:
    """Whether a write changes nothing but who wrote."""

    def bare(each: Object) -> Object:
        dropped = ("managedFields", "resourceVersion")
        meta = {k: v for k, v in each["metadata"].items() if k not in dropped}
        return {**each, "metadata": meta}

    return bare(before) == bare(item)


def _intent(item: Object, resource: Resource) -> Object:
    """What `generation` counts changes of."""
    left = {"metadata", "apiVersion"}
    if "status" in resource.subresources or not resource.custom:
        left.add("status")
    return {name: value for name, value in item.items() if name not in left}


def _pod_stays(before: Object, after: Object, resource: Resource) -> None:
    def fixed(spec: Mapping[str, Any]) -> Any:
        free = ("activeDeadlineSeconds", "tolerations", "schedulingGates",
                "terminationGracePeriodSeconds")  # fmt: skip
        kept = {name: value for name, value in spec.items() if name not in free}
        return {**kept, **{f: _imageless(spec.get(f)) for f in ("containers", "initContainers")}}

    if fixed(before["spec"]) != fixed(after["spec"]):
        text = (
            "Forbidden: pod updates may not change fields other than `spec.containers[*].image`,"
            "`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only"
            " additions to existing tolerations),`spec.terminationGracePeriodSeconds`"
        )
        name = before["metadata"]["name"]
        raise invalid("Pod", "", name, [Cause("spec", text, "FieldValueForbidden")])


def _imageless(containers: Iterable[Mapping[str, Any]] | None) -> list[dict[str, Any]]:
    return [{k: v for k, v in each.items() if k != "image"} for each in containers or ()]
