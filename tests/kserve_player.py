"""Plays KServe's controller: an InferenceService becomes ready, one revision per model."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from kube_api.cluster import Cluster
from kube_api.player import Player

SERVICES = "/apis/serving.kserve.io/v1beta1/namespaces/{namespace}/inferenceservices"
MODE = "serving.kserve.io/deploymentMode"


class KServe(Player):
    """Sets the status of the InferenceServices of a namespace, as KServe's controller does.

    Args:
        slow: looks at a new generation before it is ready.
    """

    def __init__(self, cluster: Cluster, namespace: str, slow: int = 1) -> None:
        super().__init__(cluster, namespace)
        self.slow = slow
        self.broken: set[str] = set()
        """Models whose pods never become ready."""
        self._looks: dict[tuple[str, int], int] = {}
        self._revisions: dict[str, list[tuple[str, str]]] = {}
        self._rolled: dict[str, str] = {}

    def tick(self) -> None:
        for service in self.rest.list(SERVICES):
            wanted = self._status(service, self.ready(service))
            if service.get("status") != wanted:
                name = service["metadata"]["name"]
                self.rest.patch(SERVICES, f"{name}/status", {"status": wanted})

    def ready(self, service: dict[str, Any]) -> bool:
        """Whether the pods of a service answer; looking brings that nearer."""
        meta = service["metadata"]
        seen = (meta["uid"], meta["generation"])
        self._looks[seen] = self._looks.get(seen, 0) + 1
        model = service["spec"]["predictor"]["model"]["storageUri"]
        return self._looks[seen] > self.slow and model not in self.broken

    def url(self, service: dict[str, Any]) -> str:
        """Where a service answers."""
        return f"http://{service['metadata']['name']}.{self.namespace}.example.test"

    def _status(self, service: dict[str, Any], ready: bool) -> dict[str, Any]:
        meta, predictor = service["metadata"], service["spec"]["predictor"]
        name, model = meta["name"], predictor["model"]["storageUri"]
        status: dict[str, Any] = {
            "observedGeneration": meta["generation"],
            "deploymentMode": meta["annotations"][MODE],
            "url": self.url(service),
            "conditions": _conditions(service, ready),
        }
        if status["deploymentMode"] == "Knative":
            share = predictor.get("canaryTrafficPercent")
            status["components"] = {
                "predictor": self._revision(meta["uid"], name, model, ready, share)
            }
        return status

    def _revision(
        self, uid: str, name: str, model: str, ready: bool, share: int | None
    ) -> dict[str, Any]:
        """Its revisions, a new one for each model, and who gets the traffic."""
        made = self._revisions.setdefault(uid, [])
        if not made or made[-1][1] != model:
            made.append((f"{name}-predictor-{len(made) + 1:05}", model))
        newest = made[-1][0]
        if ready and share is None:
            self._rolled[uid] = newest
        rolled = self._rolled.get(uid)
        found: dict[str, Any] = {"latestCreatedRevision": newest}
        if ready:
            found["latestReadyRevision"] = newest
        elif rolled:
            found["latestReadyRevision"] = rolled
        percent = 100 if share is None else share
        traffic = [{"revisionName": newest, "percent": percent, "latestRevision": True}]
        if rolled and rolled != newest:
            traffic.append({"revisionName": rolled, "percent": 100 - percent})
        return {**found, "traffic": traffic}


def _conditions(service: dict[str, Any], ready: bool) -> list[dict[str, str]]:
    """With the time at which each became what it is."""
    before = {c["type"]: c for c in service.get("status", {}).get("conditions", [])}
    word, now = str(ready), datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return [
        before[kind]
        if before.get(kind, {}).get("status") == word
        else {"type": kind, "status": word, "lastTransitionTime": now}
        for kind in ("PredictorReady", "Ready")
    ]
