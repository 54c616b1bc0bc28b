"""The Kubernetes API: requests that outlive a restarting server, errors that say what to do.

The official client reads the credentials (a pod's own, else the kubeconfig); the requests
are asynchronous, so that whoever waits on several watches and logs can be cancelled at any
moment and leaves no thread behind.
"""

from __future__ import annotations

import contextlib
import json
import os
import ssl
from collections.abc import AsyncIterator, Mapping
from types import TracebackType
from typing import Any, Self

import httpx
import tenacity
from kubernetes import config as credentials
from kubernetes.client import Configuration

from exsearch.errors import ExSearchError, InputError
from exsearch.kube.answers import Asked, Kind, NotServed, Passing, Refused, raise_error

Object = dict[str, Any]

PATIENCE = 300.0
"""Seconds for which a request is tried again before the API counts as lost."""
_TIMEOUT = httpx.Timeout(30.0, connect=10.0)


class Api:
    """The API as one account sees it. Use with `async with`.

    Args:
        configuration: address and credentials, of the official client.
        patience: seconds for which a request is tried again.
    """

    def __init__(self, configuration: Configuration, patience: float = PATIENCE) -> None:
        self.patience = patience
        self._configuration = configuration
        self._http = httpx.AsyncClient(
            base_url=configuration.host,
            verify=_verification(configuration),
            timeout=_TIMEOUT,
            auth=self._sign,
        )

    @classmethod
    def open(cls, patience: float = PATIENCE) -> Self:
        """The API of the cluster this pod runs in, else that of the kubeconfig.

        Raises:
            InputError: there is neither.
        """
        return cls(find_configuration(), patience)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._http.aclose()

    def _sign(self, request: httpx.Request) -> httpx.Request:
        """Add the token, read anew: a pod's token is replaced every hour."""
        token = self._configuration.get_api_key_with_prefix("authorization")
        if token:
            request.headers["Authorization"] = token
        elif self._configuration.username:
            request.headers["Authorization"] = self._configuration.get_basic_auth_token()
        return request

    async def get(self, kind: Kind, namespace: str, name: str) -> Object | None:
        """An object, None where there is none of that name."""
        try:
            return await self._call(Asked("get", kind, namespace, name), "GET")
        except Refused as error:
            if error.status == 404:
                return None
            raise

    async def list(
        self, kind: Kind, namespace: str, selection: Mapping[str, str]
    ) -> tuple[list[Object], str]:
        """The objects selected, and the version of the list to watch from.

        Args:
            selection: `labelSelector` or `fieldSelector` parameters.
        """
        asked = Asked("list", kind, namespace)
        found = await self._call(asked, "GET", params=dict(selection))
        return found["items"], found["metadata"]["resourceVersion"]

    async def create(self, kind: Kind, item: Object) -> Object:
        """Create an object; fields that the cluster's version does not know are refused.

        Raises:
            Exists: there is an object of that name.
        """
        meta = item["metadata"]
        asked = Asked("create", kind, meta["namespace"], meta["name"])
        return await self._call(asked, "POST", {"fieldValidation": "Strict"}, item)

    async def patch(self, kind: Kind, namespace: str, name: str, change: Object) -> Object:
        """Change an object by a merge patch."""
        asked = Asked("patch", kind, namespace, name)
        headers = {"Content-Type": "application/merge-patch+json"}
        return await self._call(asked, "PATCH", content=change, headers=headers)

    async def delete(
        self, kind: Kind, namespace: str, name: str, *, uid: str, foreground: bool = False
    ) -> None:
        """Delete an object; done when it is gone already, or is another one by now.

        Args:
            uid: of the object that is meant.
            foreground: it stays until all that it owns is gone.
        """
        options = {
            "propagationPolicy": "Foreground" if foreground else "Background",
            "preconditions": {"uid": uid},
        }
        try:
            await self._call(Asked("delete", kind, namespace, name), "DELETE", content=options)
        except Refused as error:
            if error.status not in (404, 409):
                raise

    async def kinds(self, group: str) -> set[str]:
        """Kinds that a group `NAME/VERSION` serves; none where it is not installed."""
        name, _, version = group.partition("/")
        asked = Asked("get", Kind(name, version, "kinds"), "")
        try:
            found = await self._call(asked, "GET", path=f"/apis/{group}")
        except NotServed:
            return set()
        return {item["kind"] for item in found["resources"] if "/" not in item["name"]}

    @contextlib.asynccontextmanager
    async def stream(
        self, verb: str, kind: Kind, namespace: str, params: Mapping[str, str],
        *, name: str = "", subresource: str = "", quiet: float,
    ) -> AsyncIterator[AsyncIterator[bytes]]:  # fmt: skip
        """The lines of a long answer, as they come; not tried again.

        Args:
            quiet: seconds without a byte after which the connection counts as lost.

        Raises:
            OSError: the connection was lost, or the server cannot answer now.
            ExSearchError: the API refused.
        """
        asked = Asked(verb, kind, namespace, name)
        path = kind.path(namespace, name, subresource)
        timeout = httpx.Timeout(quiet, connect=10.0)
        try:
            async with self._http.stream("GET", path, params=params, timeout=timeout) as answer:
                if answer.is_error:
                    await answer.aread()
                    raise_error(asked, answer)
                yield _lines(answer.aiter_bytes())
        except (httpx.TransportError, Passing) as error:
            raise ConnectionError(f"{asked}: {error or type(error).__name__}") from error

    async def _call(
        self, asked: Asked, method: str, params: dict[str, str] | None = None,
        content: Object | None = None, *, headers: dict[str, str] | None = None, path: str = "",
    ) -> Object:  # fmt: skip
        """One request and its answer, tried again while the failure may pass."""
        name = "" if method == "POST" else asked.name
        path = path or asked.kind.path(asked.namespace, name)
        body = None if content is None else json.dumps(content).encode()
        typed = {"Content-Type": "application/json", **(headers or {})} if body else {}

        async def once() -> Object:
            try:
                answer = await self._http.request(
                    method, path, params=params, content=body, headers=typed
                )
            except httpx.TransportError as error:
                raise Passing(str(error) or type(error).__name__) from error
            if answer.is_error:
                raise_error(asked, answer)
            return answer.json()

        tries = tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception_type(Passing),
            stop=tenacity.stop_after_delay(self.patience),
            wait=_pause,
            reraise=True,
        )
        try:
            return await tries(once)
        except Passing as error:
            raise ExSearchError(
                f"the Kubernetes API did not {asked} for {self.patience:.0f} seconds; last: "
                f"{error}. Check that {self._configuration.host} is up, then rerun the step."
            ) from error


_BACKOFF = tenacity.wait_random_exponential(multiplier=0.5, max=15)


def _pause(state: tenacity.RetryCallState) -> float:
    """Seconds before the next attempt: what Retry-After says, or a growing random pause."""
    error = state.outcome.exception() if state.outcome else None
    asked = error.pause if isinstance(error, Passing) else 0.0
    return asked or _BACKOFF(state)


def find_configuration() -> Configuration:
    """Address and credentials: a pod's own, else the kubeconfig's.

    Raises:
        InputError: there are neither.
    """
    found = Configuration()
    try:
        credentials.load_incluster_config(client_configuration=found)
    except credentials.ConfigException:
        try:
            # The official client looks at KUBECONFIG when it is imported, not when asked.
            file = os.environ.get("KUBECONFIG")
            credentials.load_kube_config(config_file=file, client_configuration=found)
        except (credentials.ConfigException, OSError) as error:
            raise InputError(
                f"no Kubernetes API to talk to: this is no pod with a service account's token, "
                f"and the kubeconfig cannot be used ({error}). Set KUBECONFIG, or "
                "cluster.training.launcher=local"
            ) from error
    return found


def _verification(configuration: Configuration) -> ssl.SSLContext | bool:
    if not configuration.verify_ssl:
        return False
    context = ssl.create_default_context(cafile=configuration.ssl_ca_cert)
    if configuration.cert_file:
        context.load_cert_chain(configuration.cert_file, configuration.key_file)
    return context


async def _lines(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Whole lines, cut at newlines only: a progress bar's carriage returns stay inside.

    A last line without its newline was cut short by a lost connection, and is left out.
    """
    left = b""
    async for chunk in chunks:
        *whole, left = (left + chunk).split(b"\n")
        for line in whole:
            yield line
