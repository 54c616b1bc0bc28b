"""KServe and the kubelet: an InferenceService's pods, as processes of this machine."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

import agent_pod
import manifest_checks
from kserve_player import SERVICES, KServe
from kube_api.cluster import Cluster
from kube_api.rest import Object

from exsearch.records import canonical_json

RUNTIMES = "/apis/serving.kserve.io/v1alpha1/namespaces/{namespace}/servingruntimes"
CONFIG_MAPS = "/api/v1/namespaces/{namespace}/configmaps"
LOOK = 1.0
"""Seconds between two looks at a pod's probes."""


class Replica:
    """One pod: its first containers one after the other, then the others, then its probes."""

    def __init__(self, pod: agent_pod.Pod, made_of: str) -> None:
        self.pod = pod
        self.made_of = made_of
        """What it was made of: another text, another pod."""
        self.ready = False
        self._looked = 0.0
        self._left = list(pod.first)
        self._proceed()

    def look(self) -> bool:
        """Go on with starting it, or probe it; returns whether it is ready.

        Raises:
            AssertionError: a container has ended, with what it said.
        """
        if self._left and self._left[0].process is not None:
            code = self._left[0].process.poll()
            if code is None:
                return False
            assert code == 0, f"{self._left[0].name} ended with {code}: {self._left[0].said()}"
            self._left.pop(0)
            self._proceed()
        if self._left or time.monotonic() - self._looked < LOOK:
            return self.ready
        self._looked = time.monotonic()
        for container in self.pod.containers.values():
            code = container.process.poll() if container.process else None
            assert code is None, f"{container.name} ended with {code}: {container.said()}"
        self.ready = self.pod.probe("kserve-container", "readinessProbe")
        return self.ready

    def _proceed(self) -> None:
        following = self._left[:1] or list(self.pod.containers.values())
        for container in following:
            container.start()

    def end(self) -> None:
        """SIGTERM, and the time to drain that the pod has."""
        try:
            self.pod.terminate()
        except subprocess.TimeoutExpired:
            self.pod.kill()


class KServeWithPods(KServe):
    """Starts a pod for each InferenceService, and replaces it when what it is made of changes.

    As a rolling Deployment with one replica: the old pod answers until the new one is ready.

    Args:
        folder: for the pods' files.
        volumes: folders by claim.
    """

    def __init__(
        self, cluster: Cluster, namespace: str, folder: Path, volumes: Mapping[str, Path]
    ) -> None:
        super().__init__(cluster, namespace)
        self._folder = folder
        self._volumes = volumes
        self._replicas: dict[str, list[Replica]] = {}
        self._made = 0

    def tick(self) -> None:
        there = {s["metadata"]["uid"]: s for s in self.rest.list(SERVICES)}
        for uid in set(self._replicas) - set(there):
            for replica in self._replicas.pop(uid):
                replica.end()
        super().tick()

    def ready(self, service: Object) -> bool:
        replicas = self._replicas.setdefault(service["metadata"]["uid"], [])
        spec, annotations = self._template(service)
        model = service["spec"]["predictor"]["model"]["storageUri"]
        made_of = canonical_json([spec, annotations, model])
        if not replicas or replicas[-1].made_of != made_of:
            replicas.append(Replica(self._pod(spec, model), made_of))
        newest = replicas[-1]
        if newest.look():
            for old in replicas[:-1]:
                old.end()
            del replicas[:-1]
        return any(replica.ready for replica in replicas)

    def url(self, service: Object) -> str:
        replicas = self._replicas[service["metadata"]["uid"]]
        answering = [r for r in replicas if r.ready] or replicas
        return answering[-1].pod.url

    def _template(self, service: Object) -> tuple[Object, Object]:
        """The spec and the annotations of the pod that KServe's Deployment has."""
        predictor = service["spec"]["predictor"]
        runtime = self.rest.get(RUNTIMES, predictor["model"]["runtime"])
        objects = [{**runtime, "kind": "ServingRuntime"}, {**service, "kind": "InferenceService"}]
        pod = manifest_checks.agent_pod(objects, service["metadata"]["name"])
        return pod["spec"], predictor.get("annotations", {})

    def _pod(self, spec: Object, model: str) -> agent_pod.Pod:
        self._made += 1
        (settings,) = [
            self.rest.get(CONFIG_MAPS, volume["configMap"]["name"])["data"]["run.yaml"]
            for volume in spec["volumes"]
            if "configMap" in volume
        ]
        claim, _, path = model.removeprefix("pvc://").partition("/")
        mounts = {"/mnt/models": self._volumes[claim] / path}
        return agent_pod.make(spec, settings, self._folder / f"pod-{self._made}", mounts)

    def stop(self) -> None:
        """End every pod at once."""
        for replicas in self._replicas.values():
            for replica in replicas:
                replica.pod.kill()
