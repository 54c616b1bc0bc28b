"""Refusals of the API server: metav1.Status with the reasons clients act on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

REASONS = {
    400: "BadRequest",
    401: "Unauthorized",
    403: "Forbidden",
    404: "NotFound",
    405: "MethodNotAllowed",
    409: "Conflict",
    410: "Expired",
    415: "UnsupportedMediaType",
    422: "Invalid",
    429: "TooManyRequests",
    500: "InternalError",
    503: "ServiceUnavailable",
    504: "Timeout",
}


@dataclass(frozen=True)
class Cause:
    """One field that is wrong: its path, what is wrong, and the machine's word for it."""

    field: str
    message: str
    reason: str = "FieldValueInvalid"


class ApiError(Exception):
    """A request refused, as the client will see it.

    Args:
        code: HTTP status.
        message: the sentence a person reads.
        reason: the word a program reads; by default the usual one of the code.
        details: `kind`, `name`, `group`, `causes` of the Status.
        retry_after: seconds, sent as the Retry-After header too.
    """

    def __init__(
        self,
        code: int,
        message: str,
        *,
        reason: str | None = None,
        details: dict[str, Any] | None = None,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.reason = REASONS.get(code, "") if reason is None else reason
        self.details = dict(details or {})
        self.retry_after = retry_after
        if retry_after is not None:
            self.details["retryAfterSeconds"] = retry_after

    def status(self) -> dict[str, Any]:
        """The Status object that is the body of the answer."""
        body: dict[str, Any] = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
            "details": self.details,
            "code": self.code,
        }
        return {key: value for key, value in body.items() if value or key == "metadata"}


def qualified(plural: str, group: str) -> str:
    """`pytorchjobs.kubeflow.org`, and plain `pods` for the core group."""
    return f"{plural}.{group}" if group else plural


def not_found(plural: str, group: str, name: str) -> ApiError:
    """404: no object of that name."""
    details = {"name": name, "group": group, "kind": plural}
    return ApiError(404, f'{qualified(plural, group)} "{name}" not found', details=details)


def already_exists(plural: str, group: str, name: str) -> ApiError:
    """409: an object of that name is there already."""
    details = {"name": name, "group": group, "kind": plural}
    text = f'{qualified(plural, group)} "{name}" already exists'
    return ApiError(409, text, reason="AlreadyExists", details=details)


def conflict(plural: str, group: str, name: str, why: str = "") -> ApiError:
    """409: the object was changed since the caller read it."""
    why = why or (
        "the object has been modified; please apply your changes to the latest version and try"
        " again"
    )
    details = {"name": name, "group": group, "kind": plural}
    text = f'Operation cannot be fulfilled on {qualified(plural, group)} "{name}": {why}'
    return ApiError(409, text, details=details)


def forbidden(plural: str, group: str, name: str, why: str) -> ApiError:
    """403: the caller may not, or an admission rule refuses."""
    subject = qualified(plural, group) + (f' "{name}"' if name else "")
    details = {"name": name, "group": group, "kind": plural}
    return ApiError(403, f"{subject} is forbidden: {why}", details=details)


def invalid(kind: str, group: str, name: str, causes: Sequence[Cause]) -> ApiError:
    """422: the object breaks its schema or a rule about its fields."""
    lines = [f"{cause.field}: {cause.message}" for cause in causes]
    text = lines[0] if len(lines) == 1 else f"[{', '.join(lines)}]"
    listed = [
        {"reason": cause.reason, "message": cause.message, "field": cause.field} for cause in causes
    ]
    details = {"name": name, "group": group, "kind": kind, "causes": listed}
    return ApiError(422, f'{qualified(kind, group)} "{name}" is invalid: {text}', details=details)


def expired(asked: int, oldest: int) -> ApiError:
    """410: the server no longer remembers what happened after that version."""
    return ApiError(410, f"too old resource version: {asked} ({oldest})")
