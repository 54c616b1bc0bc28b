"""The verbs of the Kubernetes API over a store."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import yaml

from kube_api import admission, apply, patches, rbac, schema, writing
from kube_api.garbage import Garbage
from kube_api.rbac import Attributes, Tokens, User
from kube_api.resources import Catalogue, Resource
from kube_api.status import ApiError, already_exists, conflict, not_found
from kube_api.store import Object, Store
from kube_api.writing import Options

JSON_PATCH = "application/json-patch+json"
MERGE_PATCH = "application/merge-patch+json"
STRATEGIC_PATCH = "application/strategic-merge-patch+json"
APPLY_PATCHES = ("application/apply-patch+yaml", "application/apply-patch+json")


class Api:
    """Creates, reads, changes and deletes objects, as their kind's endpoint would.

    Objects are returned in the version of the resource that was asked for.
    """

    def __init__(self, store: Store, catalogue: Catalogue, tokens: Tokens) -> None:
        self.store = store
        self.catalogue = catalogue
        self.tokens = tokens
        self.garbage = Garbage(store, catalogue)

    def create(
        self, resource: Resource, namespace: str, body: Any, options: Options, name: str = ""
    ) -> Object:
        """Create an object.

        Raises:
            ApiError: 400, 403, 404 (no such namespace), 409 (it exists), 422.
        """
        item = writing.named(writing.decoded(body, resource, options), resource, namespace, name)
        with self.store.lock:
            return self._insert(resource, item, options, None)

    def _insert(
        self, resource: Resource, item: Object, options: Options, owners: apply.Owners | None
    ) -> Object:
        meta = item["metadata"]
        name, namespace = meta["name"], meta.get("namespace", "")
        admission.namespace_is_open(self.store, resource, namespace, name)
        writing.check(item, resource)
        item = writing.born(item, resource)
        if not resource.custom:
            item = admission.defaulted(item, resource)
        admission.admit(self.store, item, resource, options.warnings)
        if self.store.find(resource.key, namespace, name):
            raise already_exists(resource.plural, resource.group, name)
        if owners is None:
            item = writing.owned(None, item, resource, options, "")
        else:
            item = writing.stamped(item, owners, resource.api_version)
        if options.dry_run:
            return item
        new = self.store.put(resource, item)
        self._follow(resource, new)
        return new

    def get(self, resource: Resource, namespace: str, name: str) -> Object:
        """One object.

        Raises:
            ApiError: 404.
        """
        return _as_version(self.store.get(resource, namespace, name), resource)

    def list(self, resource: Resource, namespace: str) -> list[Object]:
        """The objects of a kind, in one namespace or (empty) in all."""
        return [_as_version(i, resource) for i in self.store.all(resource.key, namespace)]

    def update(
        self, resource: Resource, namespace: str, name: str, body: Any, options: Options,
        subresource: str = "",
    ) -> Object:  # fmt: skip
        """Replace an object, or its status.

        Raises:
            ApiError: 400, 404, 409 (it was changed since it was read), 422.
        """
        item = writing.named(writing.decoded(body, resource, options), resource, namespace, name)
        seen = item["metadata"].get("resourceVersion")
        with self.store.lock:
            before = self.get(resource, namespace, name)
            if seen and seen != before["metadata"]["resourceVersion"]:
                raise conflict(resource.plural, resource.group, name)
            return self._replace(resource, before, item, options, subresource)

    def _replace(
        self, resource: Resource, before: Object, item: Object, options: Options, subresource: str
    ) -> Object:
        new = writing.replaced(before, item, resource, subresource)
        writing.check(new, resource, before)
        if writing.same(before, new):
            return before
        new = writing.owned(before, new, resource, options, subresource)
        return self._write(resource, new, options)

    def _write(self, resource: Resource, new: Object, options: Options) -> Object:
        if options.dry_run:
            return new
        new = self.store.put(resource, new)
        self.garbage.finish(resource, new)
        self._follow(resource, new)
        return new

    def patch(
        self, resource: Resource, namespace: str, name: str, kind: str, data: bytes,
        options: Options, subresource: str = "", user: User | None = None,
    ) -> Object:  # fmt: skip
        """Change an object by a patch of the content type `kind`.

        Args:
            user: who must be allowed to create the object where an apply patch creates it.

        Raises:
            ApiError: 400, 403, 404, 409 (apply: a field has another owner), 415, 422.
        """
        if kind in APPLY_PATCHES:
            intent = yaml.safe_load(data)
            return self._apply(resource, namespace, name, intent, options, subresource, user)
        patch = json.loads(data)
        with self.store.lock:
            before = self.get(resource, namespace, name)
            match kind:
                case _ if kind == JSON_PATCH:
                    after = patches.json_patch(before, patch)
                case _ if kind == MERGE_PATCH:
                    after = patches.merge(before, patch)
                case _ if kind == STRATEGIC_PATCH and not resource.custom:
                    after = patches.strategic(before, patch, resource.schema)
                case _:
                    text = f"the body of the request was in an unknown format: {kind}"
                    raise ApiError(415, text)
            return self.update(resource, namespace, name, after, options, subresource)

    def _apply(
        self, resource: Resource, namespace: str, name: str, intent: Any, options: Options,
        subresource: str, user: User | None,
    ) -> Object:  # fmt: skip
        intent = self._intent(resource, namespace, name, intent)
        manager = apply.Manager(options.manager, "Apply", subresource)
        with self.store.lock:
            found = self.store.find(resource.key, namespace, name)
            live = _as_version(found, resource) if found else None
            if live is None and subresource:
                raise not_found(resource.plural, resource.group, name)
            intent = _part(intent, resource, subresource)
            old = apply.read_owners((live or intent)["metadata"].get("managedFields") or ())
            new, owners = apply.applied_to(
                live, intent, resource.schema, manager, old, options.force
            )
            if resource.custom:
                new = schema.defaulted(new, resource.schema)
            if live is None:
                if user is not None:
                    asked = Attributes("create", *resource.key, "", namespace, name)
                    rbac.check(self.store, user, asked)
                return self._insert(resource, new, options, owners)
            new = writing.replaced(live, new, resource, subresource)
            writing.check(new, resource, live)
            if writing.same(live, new) and owners == old:
                return live
            return self._write(
                resource, writing.stamped(new, owners, resource.api_version), options
            )

    def _intent(self, resource: Resource, namespace: str, name: str, intent: Any) -> Object:
        """An apply patch as an object; fields that the schema does not name are refused."""
        lenient = Options(validation="Ignore")
        problems: list[str] = []
        if isinstance(intent, Mapping):
            unknown: list[str] = []
            schema.pruned(intent, resource.schema, "", unknown)
            problems = [f".{path}: field not declared in schema" for path in unknown]
            for path, wanted, value in schema.wrong_types(intent, resource.schema):
                problems.append(f".{path}: expected {wanted}, got {type(value).__name__}")
        if problems:
            text = (
                f"failed to create typed patch object ({namespace}/{name}; {resource.api_version},"
                f" Kind={resource.kind}): {problems[0]}"
            )
            raise ApiError(500, text, reason="")
        plain = Resource(**{**vars(resource), "custom": False})  # defaults are not the applier's
        item = writing.decoded(intent, plain, lenient)
        return writing.named(item, resource, namespace, name)

    def delete(
        self, resource: Resource, namespace: str, name: str, body: Mapping[str, Any]
    ) -> tuple[Object, bool]:
        """Delete an object under DeleteOptions.

        Returns:
            The object, and whether it is gone already (finalizers, a kubelet's grace period and
            foreground deletion keep it).

        Raises:
            ApiError: 404, 409 (another uid or version than the preconditions say).
        """
        with self.store.lock:
            before = self.get(resource, namespace, name)
            wanted = body.get("preconditions") or {}
            for field in ("uid", "resourceVersion"):
                if wanted.get(field, before["metadata"][field]) != before["metadata"][field]:
                    text = f"Precondition failed: {field} in precondition: {wanted[field]}"
                    raise conflict(resource.plural, resource.group, name, text)
            if body.get("dryRun"):
                return before, True
            return self.garbage.delete(resource, before, body)

    def _follow(self, resource: Resource, item: Object) -> None:
        """What a controller does at once when such an object appears."""
        meta = item["metadata"]
        if resource.key == ("apiextensions.k8s.io", "customresourcedefinitions"):
            self._serve(resource, item)
        elif resource.key == ("", "namespaces") and not meta.get("deletionTimestamp"):
            account = next(r for r in self.catalogue if r.plural == "serviceaccounts")
            if not self.store.find(account.key, meta["name"], "default"):
                body = {"metadata": {"name": "default"}}
                options = Options(manager="kube-controller-manager")
                self.create(account, meta["name"], body, options)
        elif meta.get("ownerReferences"):
            self.garbage.collect()

    def install(self, crd: Object) -> None:
        """Hold a CRD from the start; taken at its word, for checking megabytes takes minutes."""
        resource = next(r for r in self.catalogue if r.plural == "customresourcedefinitions")
        self._serve(resource, self.store.put(resource, writing.born(crd, resource)))

    def _serve(self, resource: Resource, crd: Object) -> None:
        self.catalogue.add(crd)
        if "status" not in crd:
            held = [v["name"] for v in crd["spec"]["versions"] if v.get("storage")]
            yes = {"status": "True", "lastTransitionTime": writing.now(), "message": ""}
            conditions = [
                {**yes, "type": "NamesAccepted", "reason": "NoConflicts"},
                {**yes, "type": "Established", "reason": "InitialNamesAccepted"},
            ]
            status = {
                "conditions": conditions,
                "acceptedNames": crd["spec"]["names"],
                "storedVersions": held,
            }
            self.store.put(resource, {**crd, "status": status})


def _as_version(item: Object, resource: Resource) -> Object:
    """The object under the API version asked for (conversion `None`: only the name changes)."""
    if item.get("apiVersion") == resource.api_version:
        return item
    return {**item, "apiVersion": resource.api_version}


def _part(intent: Object, resource: Resource, subresource: str) -> Object:
    """What of an intent its path may change."""
    if subresource == "status":
        kept = ("apiVersion", "kind", "status")
        part = {name: value for name, value in intent.items() if name in kept}
        identity = ("name", "namespace")
        meta = {k: v for k, v in intent["metadata"].items() if k in identity}
        return {**part, "metadata": meta}
    if "status" in resource.subresources:
        return {name: value for name, value in intent.items() if name != "status"}
    return intent
