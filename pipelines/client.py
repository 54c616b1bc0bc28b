"""The generated client of Kubeflow Pipelines' API: a deadline for it, and its refusals in words."""

from __future__ import annotations

import json
from typing import Any

import kfp_server_api as api

from exsearch.errors import ExSearchError, InputError


class TimelyClient(api.ApiClient):
    """The generated client, with a deadline for every request: its own default is none."""

    def __init__(self, how: Any, deadline: float) -> None:
        super().__init__(how)
        # To connect, to answer. A single number that is no int would be ignored.
        self._deadline = (deadline, deadline)

    def call_api(self, *args: Any, _request_timeout: Any = None, **more: Any) -> Any:
        timeout = _request_timeout or self._deadline
        return super().call_api(*args, _request_timeout=timeout, **more)


class NotThere(InputError):
    """The server knows no such thing."""


class AlreadyThere(InputError):
    """The server has something of that name."""


def told(doing: str, host: str, token_env: str, error: api.ApiException) -> ExSearchError:
    """The server's refusal in a sentence."""
    said = _words(error)
    if error.status in (401, 403):
        return InputError(
            f"cannot {doing}: {host} does not let us ({error.status}: {said}). Put a token that "
            f"may use Kubeflow Pipelines into the environment variable {token_env}."
        )
    if error.status == 404:
        return NotThere(f"cannot {doing}: {host} says: {said}")
    if error.status == 409:
        return AlreadyThere(f"cannot {doing}: {host} says: {said}")
    kind = InputError if error.status and 400 <= error.status < 500 else ExSearchError
    return kind(f"cannot {doing}: {host} answered {error.status}: {said}")


def _words(error: api.ApiException) -> str:
    try:
        body = json.loads(error.body or "")
        return str(body.get("message") or body.get("error") or error.reason)
    except (ValueError, AttributeError):
        return str(error.reason)
