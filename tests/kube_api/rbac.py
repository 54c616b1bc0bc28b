"""Who is asking, and what Roles and bindings let them do."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from kube_api.status import ApiError, forbidden
from kube_api.store import Object, Store

_GROUP = "rbac.authorization.k8s.io"
MASTERS = "system:masters"


@dataclass(frozen=True)
class User:
    """Who sent a request."""

    name: str
    groups: frozenset[str]

    @property
    def master(self) -> bool:
        """Allowed everything."""
        return MASTERS in self.groups


ANONYMOUS = User("system:anonymous", frozenset({"system:unauthenticated"}))


@dataclass(frozen=True)
class Attributes:
    """What is asked for: `subresource` is empty for the object itself, `name` for all of them."""

    verb: str
    group: str
    resource: str
    subresource: str = ""
    namespace: str = ""
    name: str = ""

    @property
    def path(self) -> str:
        """`pods`, `pods/log`: as Roles write it."""
        return f"{self.resource}/{self.subresource}" if self.subresource else self.resource


def account_user(namespace: str, name: str) -> User:
    """The user that a service account is."""
    groups = {
        "system:serviceaccounts",
        f"system:serviceaccounts:{namespace}",
        "system:authenticated",
    }
    return User(f"system:serviceaccount:{namespace}:{name}", frozenset(groups))


class Tokens:
    """Bearer tokens: of administrators, and those issued to service accounts.

    Args:
        masters: tokens and the users that they are, all of `system:masters`.
    """

    def __init__(self, store: Store, masters: Mapping[str, str]) -> None:
        self._store = store
        self._masters = dict(masters)
        self._issued: dict[str, tuple[str, str, str, float]] = {}

    def issue(self, account: Object, seconds: int) -> str:
        """A token for a service account, good for so many seconds."""
        meta = account["metadata"]
        token = secrets.token_urlsafe(32)
        until = time.time() + seconds
        self._issued[token] = meta["namespace"], meta["name"], meta["uid"], until
        return token

    def user(self, header: str | None) -> User:
        """Who an Authorization header names.

        Raises:
            ApiError: 401, a token that is unknown, expired, or of an account that is gone.
        """
        if not header:
            return ANONYMOUS
        scheme, _, token = header.partition(" ")
        if scheme.lower() == "bearer" and token in self._masters:
            return User(self._masters[token], frozenset({MASTERS, "system:authenticated"}))
        namespace, name, uid, until = self._issued.get(token, ("", "", "", 0.0))
        account = self._store.find(("", "serviceaccounts"), namespace, name)
        if account is None or account["metadata"]["uid"] != uid or time.time() > until:
            raise ApiError(401, "Unauthorized")
        return account_user(namespace, name)


def allowed(store: Store, user: User, asked: Attributes) -> bool:
    """Whether a user may do it."""
    if user.master:
        return True
    if asked.resource == "selfsubjectaccessreviews" and asked.verb == "create":
        return "system:authenticated" in user.groups
    return any(_rule_allows(rule, asked) for rule in _rules(store, user, asked.namespace))


def check(store: Store, user: User, asked: Attributes) -> None:
    """Refuse what a user may not do.

    Raises:
        ApiError: 403, in the words of the real server.
    """
    if not allowed(store, user, asked):
        where = f'in the namespace "{asked.namespace}"' if asked.namespace else (
            "at the cluster scope"
        )  # fmt: skip
        why = (
            f'User "{user.name}" cannot {asked.verb} resource "{asked.path}" in API group'
            f' "{asked.group}" {where}'
        )
        raise forbidden(asked.resource, asked.group, asked.name, why)


def _rules(store: Store, user: User, namespace: str) -> Iterator[Mapping[str, Any]]:
    """Rules that hold for a user: of the whole cluster, and of a namespace."""
    for binding in store.all((_GROUP, "clusterrolebindings")):
        if _binds(binding, user, ""):
            yield from _role(store, binding["roleRef"], "")
    if namespace:
        for binding in store.all((_GROUP, "rolebindings"), namespace):
            if _binds(binding, user, namespace):
                yield from _role(store, binding["roleRef"], namespace)


def _binds(binding: Object, user: User, namespace: str) -> bool:
    for subject in binding.get("subjects") or ():
        match subject["kind"]:
            case "ServiceAccount":
                home = subject.get("namespace") or namespace
                if user.name == f"system:serviceaccount:{home}:{subject['name']}":
                    return True
            case "Group":
                if subject["name"] in user.groups:
                    return True
            case _:
                if subject["name"] == user.name:
                    return True
    return False


def _role(store: Store, reference: Mapping[str, str], namespace: str) -> list[Mapping[str, Any]]:
    if reference["kind"] == "ClusterRole":
        role = store.find((_GROUP, "clusterroles"), "", reference["name"])
    else:
        role = store.find((_GROUP, "roles"), namespace, reference["name"])
    return (role or {}).get("rules") or []


def _rule_allows(rule: Mapping[str, Any], asked: Attributes) -> bool:
    def covers(field: str, *wanted: str) -> bool:
        listed = rule.get(field) or ()
        return "*" in listed or any(value in listed for value in wanted)

    paths = (asked.path, f"*/{asked.subresource}") if asked.subresource else (asked.path,)
    names = rule.get("resourceNames") or ()
    return (
        covers("verbs", asked.verb)
        and covers("apiGroups", asked.group)
        and covers("resources", *paths)
        and (not names or (asked.name != "" and asked.name in names))
    )
