"""The operator with many SearchAgents: seconds, memory, and requests for each of them.

    python benchmarks/operator_scale.py --agents 200

The operator is a process of its own; the API server, Kubeflow Pipelines and KServe are the
stand-ins of the tests, in this process. Measured are the start with that many new agents, a
restart over the same agents (every one is looked at once, and nothing is to be done: what one
round of looks at agents at rest costs), and a restart after which one spec is edited.
"""

from __future__ import annotations

import argparse
import contextlib
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
from kubernetes import client
from retrieval_data import finish, machine

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

NAMESPACE = "scale"
COMMAND = [sys.executable, "-c", "from exsearch.cli.operator import app; app()", "run"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--agents", type=int, default=200)
    count = parser.parse_args().agents
    before = machine()
    finish("operator_scale", {"machine": before, "agents": count, **measured(count)})


def measured(count: int) -> dict[str, Any]:
    """The figures of the three parts."""
    from kserve_player import KServe  # pyright: ignore[reportMissingImports]
    from kube_api.cluster import crd_folder, open_cluster  # pyright: ignore[reportMissingImports]
    from operator_scene import Agents, kubeflow_with_runs, spec  # pyright: ignore[reportMissingImports]

    from exsearch.operator.crd import definition

    crds = crd_folder()
    if crds is None:
        sys.exit("no CRDs: set EXSEARCH_CRDS to a folder of them")
    with tempfile.TemporaryDirectory() as folder, kubeflow_with_runs() as kubeflow:
        cluster = open_cluster(Path(folder), crds)
        api = client.ApiextensionsV1Api(cluster.client())
        api.create_custom_resource_definition(definition())
        cluster.core.create_namespace({"metadata": {"name": NAMESPACE}})
        agents = Agents(cluster, NAMESPACE)
        names = [f"bot-{number:03}" for number in range(count)]
        for name in names:
            agents.create(name, spec(kubeflow.url))
        with KServe(cluster, NAMESPACE):
            scene = Scene(cluster, agents, names)
            found = {
                "start": scene.part(lambda: scene.phases() == {"Serving": count}),
                "restart": scene.part(lambda: scene.looked_at() >= count),
                "edit": scene.part(
                    lambda: (
                        agents.service(names[0])["spec"]["predictor"]["model"]["storageUri"]
                        == "s3://b/other"
                    ),
                    lambda: agents.patch(names[0], {"spec": {"model": {"path": "s3://b/other"}}}),
                ),
            }
        found["kubeflow"] = {
            "recurring_runs": len(kubeflow.recurring),
            "asked": len(kubeflow.asked),
        }
        cluster.close()
    return found


class Scene:
    """A cluster with agents, and the operator's process beside it."""

    def __init__(self, cluster: Any, agents: Any, names: list[str]) -> None:
        self.cluster, self.agents, self.names = cluster, agents, names
        # The administrator makes and looks at the agents: the operator needs its own name.
        account = {"metadata": {"name": "operator"}}
        cluster.core.create_namespaced_service_account(NAMESPACE, account)
        body = {
            "metadata": {"name": "operator"},
            "subjects": [{"kind": "ServiceAccount", "name": "operator", "namespace": NAMESPACE}],
            "roleRef": {
                "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole",
                "name": "cluster-admin",
            },
        }  # fmt: skip
        client.RbacAuthorizationV1Api(cluster.client()).create_cluster_role_binding(body)
        self._user = f"system:serviceaccount:{NAMESPACE}:operator"
        self._from = 0

    def requests(self) -> list[Any]:
        """The operator's requests in this part."""
        return [r for r in self.cluster.requests[self._from :] if r.user == self._user]

    def looked_at(self) -> int:
        """Agents that were read in this part."""
        return len(
            {r.name for r in self.requests() if r.resource == "searchagents" and r.verb == "get"}
        )

    def phases(self) -> Counter[str]:
        found: Any = self.cluster.custom.list_namespaced_custom_object(
            "exsearch.dev", "v1alpha1", NAMESPACE, "searchagents"
        )
        return Counter(item.get("status", {}).get("phase", "") for item in found["items"])

    def part(
        self, done: Callable[[], bool], begin: Callable[[], None] = lambda: None
    ) -> dict[str, Any]:
        """Run the operator until something is so, and a moment longer; what it took."""
        self._from = len(self.cluster.requests)
        with self._operator() as process:
            began, peak = time.monotonic(), 0.0
            begin()
            while not done():
                peak = max(peak, process.memory_info().rss / 2**20)
                if time.monotonic() - began > 1800:
                    sys.exit("not within half an hour")
                time.sleep(0.5)
            seconds = time.monotonic() - began
            time.sleep(5)
            cpu, rss = process.cpu_times(), process.memory_info().rss / 2**20
        by_verb = Counter(r.verb for r in self.requests())
        writes = sum(by_verb[verb] for verb in ("create", "patch", "update", "delete"))
        return {
            "seconds": round(seconds, 1),
            "processor_seconds": round(cpu.user + cpu.system, 1),
            "memory_mib": round(rss),
            "memory_peak_mib": round(max(peak, rss)),
            "requests": dict(by_verb),
            "reads_per_agent": round(by_verb["get"] / len(self.names), 2),
            "writes_per_agent": round(writes / len(self.names), 2),
        }

    @contextlib.contextmanager
    def _operator(self) -> Iterator[psutil.Process]:
        kubeconfig = self.cluster.kubeconfig(f"{NAMESPACE}/operator")
        flags = ["--kubeconfig", str(kubeconfig), "--no-leader", "--metrics-port", "0"]
        child = subprocess.Popen([*COMMAND, *flags], stderr=subprocess.DEVNULL)
        try:
            yield psutil.Process(child.pid)
        finally:
            child.terminate()
            child.wait(60)


if __name__ == "__main__":
    main()
