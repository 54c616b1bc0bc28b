"""One HTTP request, read as the API server reads it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from kube_api.rbac import Attributes, User
from kube_api.resources import Catalogue, Resource
from kube_api.selectors import single_name
from kube_api.status import ApiError
from kube_api.writing import Options

_VERBS = {"GET": "get", "POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
_COLLECTION_VERBS = {"GET": "list", "DELETE": "deletecollection"}


@dataclass(frozen=True)
class Recorded:
    """What a request asked for, in the terms of a Role's rules.

    Args:
        user: `admin`, or `system:serviceaccount:NAMESPACE:NAME`.
        subresource, namespace, name: empty where the request has none.
    """

    user: str
    verb: str
    group: str
    resource: str
    subresource: str = ""
    namespace: str = ""
    name: str = ""


@dataclass(frozen=True)
class Request:
    """A request for a kind's objects.

    Args:
        query: every parameter's last value.
    """

    user: User
    resource: Resource
    attributes: Attributes
    query: dict[str, str]
    content_type: str
    data: bytes

    @property
    def namespace(self) -> str:
        """Of the path, empty for all namespaces and for kinds without."""
        return self.attributes.namespace if self.resource.namespaced else ""

    @property
    def name(self) -> str:
        """Of the path, empty for a collection."""
        return self.attributes.name

    @property
    def recorded(self) -> Recorded:
        """It, for tests to look at."""
        a = self.attributes
        return Recorded(
            self.user.name, a.verb, a.group, a.resource, a.subresource, a.namespace, a.name
        )

    def body(self) -> Any:
        """The body as JSON; empty where there is none.

        Raises:
            ApiError: 400, it is not JSON.
        """
        try:
            return json.loads(self.data or b"{}")
        except ValueError as error:
            raise ApiError(400, f"the object provided is unrecognized: {error}") from error

    def deletion(self) -> dict[str, Any]:
        """DeleteOptions of body and parameters."""
        options = {**self.query, **self.body()}
        if "gracePeriodSeconds" in options:
            options["gracePeriodSeconds"] = int(options["gracePeriodSeconds"])
        return options

    def flag(self, name: str) -> bool:
        """Whether a parameter is set, to anything but `false` or `0`."""
        return is_true(self.query, name)

    def options(self, agent: str) -> Options:
        """What its parameters say about a write.

        Args:
            agent: the User-Agent header: the manager where no parameter names one.
        """
        return Options(
            validation=self.query.get("fieldValidation") or "Warn",
            manager=self.query.get("fieldManager") or agent.split("/")[0] or "unknown",
            force=self.flag("force"),
            dry_run=bool(self.query.get("dryRun")),
        )


def is_true(query: dict[str, str], name: str) -> bool:
    """Whether a parameter is set, to anything but `false` or `0`."""
    return name in query and query[name].lower() not in ("false", "0")


def split(target: str) -> tuple[list[str], dict[str, str]]:
    """Parts of a path, and parameters."""
    url = urlsplit(target)
    query = parse_qs(url.query, keep_blank_values=True)
    return [unquote(part) for part in url.path.split("/") if part], {
        name: values[-1] for name, values in query.items()
    }


def read(
    user: User, method: str, target: str, content_type: str, data: bytes, catalogue: Catalogue
) -> Request:
    """A request for objects.

    Raises:
        ApiError: 404, no such kind is served; 405, no such verb.
    """
    parts, query = split(target)
    if parts[0] == "api":
        group, version, rest = "", parts[1], parts[2:]
    else:
        group, version, rest = parts[1], parts[2], parts[3:]
    namespace = ""
    # /namespaces/NS is the namespace itself; with a kind after it, that kind's home.
    if rest[0] == "namespaces" and len(rest) > 2 and catalogue.get(group, version, rest[2]):
        namespace, rest = rest[1], rest[2:]
    resource = catalogue.get(group, version, rest[0])
    if resource is None or len(rest) > 3:
        raise ApiError(404, "the server could not find the requested resource")
    name, subresource = (*rest[1:], "", "")[:2]
    verb = _VERBS.get(method, "")
    if not name:
        verb = _COLLECTION_VERBS.get(method, verb)
        if verb == "list" and is_true(query, "watch"):
            verb = "watch"
        pinned = single_name(query.get("fieldSelector", ""))
        name = pinned if verb in ("list", "watch") else name
    if not verb or (method == "POST" and name and not subresource):
        raise ApiError(405, "the server does not allow this method on the requested resource")
    if subresource and subresource not in resource.subresources:
        raise ApiError(404, "the server could not find the requested resource")
    own = resource.key == ("", "namespaces")  # a namespace is in the namespace that it is
    where = name if own else namespace
    attributes = Attributes(verb, group, rest[0], subresource, where, name)
    return Request(user, resource, attributes, query, content_type.partition(";")[0].strip(), data)
