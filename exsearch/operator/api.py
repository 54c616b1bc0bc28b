"""The Kubernetes API as the operator uses it: server-side apply, status, all counted."""

from __future__ import annotations

from collections.abc import Callable

import httpx
from kubernetes import config as credentials
from kubernetes.client import Configuration

from exsearch.errors import InputError
from exsearch.kube.answers import Asked, Kind
from exsearch.kube.client import Api, Object, find_configuration
from exsearch.operator.kinds import MANAGER

PATIENCE = 10.0
"""Seconds for which a request is tried again. Short: the reconcile itself comes back."""
_VERBS = {"GET": "get", "POST": "create", "PATCH": "patch", "DELETE": "delete", "PUT": "update"}

Counted = Callable[[str, str], None]
"""Told of each answer: the verb, and the HTTP status."""


class OperatorApi(Api):
    """`Api` with what a controller needs beside.

    Args:
        configuration: address and credentials.
        patience: seconds for which a request is tried again.
        counted: told of each answer.
    """

    def __init__(
        self,
        configuration: Configuration,
        patience: float = PATIENCE,
        counted: Counted = lambda verb, code: None,
    ) -> None:
        super().__init__(configuration, patience)

        async def count(answer: httpx.Response) -> None:
            counted(_VERBS.get(answer.request.method, "other"), str(answer.status_code))

        self._http.event_hooks["response"].append(count)

    async def apply(self, kind: Kind, item: Object) -> Object:
        """Apply an object server-side: what it says holds, whoever said otherwise.

        Raises:
            Invalid: the API does not accept it.
            InputError: the account may not, or a policy forbids it.
            ExSearchError: the API does not answer.
        """
        meta = item["metadata"]
        asked = Asked("patch", kind, meta["namespace"], meta["name"])
        headers = {"Content-Type": "application/apply-patch+yaml"}
        params = {"fieldManager": MANAGER, "force": "true"}
        return await self._call(asked, "PATCH", params, item, headers=headers)

    async def patch_status(
        self, kind: Kind, namespace: str, name: str, version: str, change: Object
    ) -> Object:
        """Merge a change into an object's status.

        Args:
            version: the `resourceVersion` that was looked at; another one is refused.

        Raises:
            Refused: 409, the object was changed since; 404, it is gone.
        """
        asked = Asked("patch", kind, namespace, name)
        path = kind.path(namespace, name, "status")
        body = {"metadata": {"resourceVersion": version}, "status": change}
        return await self._call(asked, "PATCH", _MANAGED, body, headers=_MERGE, path=path)

    async def patch_metadata(
        self, kind: Kind, namespace: str, name: str, version: str, change: Object
    ) -> Object:
        """Merge a change into an object's metadata, as long as it is at this version.

        Raises:
            Refused: 409, the object was changed since; 404, it is gone.
        """
        asked = Asked("patch", kind, namespace, name)
        body = {"metadata": {"resourceVersion": version, **change}}
        return await self._call(asked, "PATCH", _MANAGED, body, headers=_MERGE)


_MERGE = {"Content-Type": "application/merge-patch+json"}
_MANAGED = {"fieldManager": MANAGER}


def configuration_of(kubeconfig: str) -> Configuration:
    """Address and credentials of a kubeconfig; empty: the pod's own, else `KUBECONFIG`.

    Raises:
        InputError: the file cannot be used, or there is none.
    """
    if not kubeconfig:
        return find_configuration()
    found = Configuration()
    try:
        credentials.load_kube_config(config_file=kubeconfig, client_configuration=found)
    except (credentials.ConfigException, OSError) as error:
        raise InputError(
            f"the kubeconfig {kubeconfig} cannot be used: {error}. Name another with --kubeconfig"
        ) from error
    return found
