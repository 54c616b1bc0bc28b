"""What is asked of the Kubernetes API, and what its errors mean to a person."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, NoReturn

import httpx

from exsearch.errors import ExSearchError, InputError

PASSING = frozenset({429, 500, 502, 503, 504})
"""Statuses of failures that may have passed by the next attempt."""


@dataclass(frozen=True)
class Kind:
    """A kind of namespaced object, and who installs it."""

    group: str
    """Empty: the core API."""
    version: str
    plural: str
    owner: str = "Kubernetes"

    @property
    def resource(self) -> str:
        """As Roles and error messages name it: `pytorchjobs.kubeflow.org`."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    def path(self, namespace: str, name: str = "", subresource: str = "") -> str:
        """Path of an object, or of the collection."""
        root = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        parts = [root, "namespaces", namespace, self.plural, name, subresource]
        return "/".join(part for part in parts if part)


PODS = Kind("", "v1", "pods")
EVENTS = Kind("", "v1", "events")


class Refused(ExSearchError):
    """The API's final answer was an error.

    Attributes:
        status: the HTTP status.
    """

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class Exists(Refused):
    """There is an object of that name (409)."""


class Expired(Refused):
    """The version asked for is no longer remembered (410): list again."""


class NotServed(InputError):
    """The cluster has no such kind."""


class Invalid(InputError):
    """The API does not accept what it was sent (400, 422)."""


class Passing(Exception):
    """A failure that may have passed by the next attempt."""

    def __init__(self, why: str, pause: float = 0.0) -> None:
        super().__init__(why)
        self.pause = pause


@dataclass(frozen=True)
class Asked:
    """A request, for error messages."""

    verb: str
    kind: Kind
    namespace: str
    name: str = ""

    def __str__(self) -> str:
        name = f" {self.name}" if self.name else ""
        return f"{self.verb} {self.kind.resource}{name} in namespace {self.namespace}"


def raise_error(asked: Asked, answer: httpx.Response) -> NoReturn:
    """Raise what an error of the API means."""
    status = answer.status_code
    said = _status(answer)
    message = said.get("message") or answer.text.strip() or answer.reason_phrase
    if status in PASSING:
        seconds = answer.headers.get("Retry-After", "")
        raise Passing(f"{status} {message}", float(seconds) if seconds.isdigit() else 0.0)
    if status == 410:
        raise Expired(message, status)
    if status == 409 and said.get("reason") == "AlreadyExists":
        raise Exists(message, status)
    if status == 404 and not said.get("details", {}).get("name"):
        raise NotServed(
            f"the cluster does not serve {asked.kind.resource} ({asked.kind.version}): "
            f"{asked.kind.owner} is not installed, or in another version"
        )
    if status in (400, 422):
        raise Invalid(f"the Kubernetes API does not accept to {asked}: {message}")
    if status == 401:
        raise InputError(
            f"the Kubernetes API does not know these credentials ({asked}): {message}. "
            "Renew the kubeconfig or the service account's token"
        )
    if status == 403:
        raise _forbidden(asked, message)
    raise Refused(f"the Kubernetes API refused to {asked}: {status} {message}", status)


def _forbidden(asked: Asked, message: str) -> ExSearchError:
    """An account without the verb, or an object that a policy does not admit."""
    account = re.search(r'User "([^"]+)" cannot', message)
    if account is None:
        return InputError(f"the cluster's policies forbid to {asked}: {message}")
    return InputError(
        f"{account[1]} may not {asked}: {message}. Run the step under an account that is bound "
        "to the Role of the launcher (manifests/bases/accounts)"
    )


def _status(answer: httpx.Response) -> dict[str, Any]:
    """The metav1.Status of an error; empty where a proxy answered."""
    try:
        said = answer.json()
    except ValueError:
        return {}
    return said if isinstance(said, dict) and said.get("kind") == "Status" else {}
