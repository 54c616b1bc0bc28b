"""Why a request gets no answer, as its client is told."""

from __future__ import annotations

import math
from typing import Any

from exsearch.errors import ExSearchError

STATUS = {
    "invalid": 400,
    "too_long": 400,
    "token_budget": 400,
    "unauthorised": 401,
    "unknown_model": 404,
    "unknown_request": 404,
    "queue_full": 429,
    "malformed": 500,
    "empty_answer": 500,
    "storage": 503,
    "engine": 503,
    "retriever": 503,
    "closing": 503,
    "deadline": 504,
}
"""HTTP status of each reason. 400: asked wrongly; 5xx: asked rightly, and it failed here."""

_KINDS = {400: "invalid_request_error", 401: "authentication_error", 404: "not_found_error"}
_KINDS |= {429: "rate_limit_error"}
_AGAIN = {"queue_full", "engine", "retriever", "closing"}


class Refused(ExSearchError):
    """A request that cannot be answered.

    Attributes:
        reason: a key of `STATUS`; also the label of the metrics.
        retry_after: seconds after which asking again may help, where it may.
    """

    def __init__(self, reason: str, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.reason, self.status = reason, STATUS[reason]
        if retry_after is None and reason in _AGAIN:
            retry_after = 1.0
        self.retry_after = None if retry_after is None else math.ceil(max(1.0, retry_after))

    @property
    def headers(self) -> dict[str, str]:
        return {} if self.retry_after is None else {"retry-after": str(self.retry_after)}

    def body(self) -> dict[str, Any]:
        """The error as OpenAI's clients expect it."""
        kind = _KINDS.get(self.status, "server_error")
        return {"error": {"message": str(self), "type": kind, "code": self.reason, "param": None}}
