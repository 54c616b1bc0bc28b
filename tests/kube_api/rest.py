"""Objects as plain JSON over a client of the kubernetes package, for the players."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from kubernetes import client

Object = dict[str, Any]

PODS = "/api/v1/namespaces/{namespace}/pods"
SERVICES = "/api/v1/namespaces/{namespace}/services"
EVENTS = "/api/v1/namespaces/{namespace}/events"
PYTORCHJOBS = "/apis/kubeflow.org/v1/namespaces/{namespace}/pytorchjobs"
NODES = "/api/v1/nodes"


class Rest:
    """One namespace's objects.

    Every method raises `kubernetes.client.ApiException` where the server refuses, and urllib3's
    errors where it does not answer.
    """

    def __init__(self, api: client.ApiClient, namespace: str) -> None:
        self._api = api
        self.namespace = namespace

    def list(self, kind: str, labels: str = "") -> list[Object]:
        """The objects of a kind (one of this module's paths)."""
        query = [("labelSelector", labels)] if labels else []
        return self._call("GET", kind, query=query)["items"]

    def get(self, kind: str, name: str) -> Object:
        """One object."""
        return self._call("GET", f"{kind}/{name}")

    def create(self, kind: str, body: Mapping[str, Any]) -> Object:
        """Create an object."""
        return self._call("POST", kind, body=body)

    def patch(self, kind: str, name: str, body: Mapping[str, Any]) -> Object:
        """Merge a patch into an object; `name` may end in a subresource."""
        return self._call("PATCH", f"{kind}/{name}", body=body)

    def put(self, kind: str, name: str, body: Mapping[str, Any]) -> Object:
        """Replace an object; `name` may end in a subresource."""
        return self._call("PUT", f"{kind}/{name}", body=body)

    def post(self, kind: str, name: str, body: Mapping[str, Any]) -> Object:
        """Post to a subresource, `NAME/binding` for example."""
        return self._call("POST", f"{kind}/{name}", body=body)

    def delete(self, kind: str, name: str, **options: Any) -> None:
        """Delete an object; one that is not there is deleted already."""
        try:
            self._call("DELETE", f"{kind}/{name}", body=options)
        except client.ApiException as error:
            if error.status != 404:
                raise

    def event(self, about: Mapping[str, Any], kind: str, reason: str, message: str) -> None:
        """Write a warning event about an object."""
        meta = about["metadata"]
        body = {
            "metadata": {"generateName": f"{meta['name'][:200]}.", "namespace": self.namespace},
            "involvedObject": {
                "kind": kind,
                "apiVersion": about["apiVersion"],
                "namespace": self.namespace,
                "name": meta["name"],
                "uid": meta["uid"],
            },
            "type": "Warning",
            "reason": reason,
            "message": message,
            "source": {"component": "player"},
            "count": 1,
        }
        self.create(EVENTS, body)

    def _call(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        query: list[tuple[str, str]] | None = None,
    ) -> Any:
        kind = "application/merge-patch+json" if method == "PATCH" else "application/json"
        answer: Any = self._api.call_api(
            path.format(namespace=self.namespace),
            method,
            query_params=query or [],
            header_params={"Accept": "application/json", "Content-Type": kind},
            body=body,
            auth_settings=["BearerToken"],
            _preload_content=False,
            _return_http_data_only=True,
            _request_timeout=30,
        )
        return json.loads(answer.data or b"{}")
