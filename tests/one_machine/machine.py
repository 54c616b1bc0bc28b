"""The machine: a cluster as its operators set it up, and those who play its parts."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kube_api.cluster import Cluster, crd_folder, open_cluster
from manifest_checks import MANIFESTS, Object, tool
from operator_scene import Agents

from one_machine.kserve import KServeWithPods
from one_machine.kubeflow import KubeflowThatRuns, kubeflow

NAMESPACE = "exsearch"
"""Of the agents, as `manifests/operator/tenant` makes it."""
CLAIM = "exsearch"


@dataclass
class Machine:
    """What the story needs of it."""

    cluster: Cluster
    kubeflow: KubeflowThatRuns
    kserve: KServeWithPods
    volume: Path
    """The folder that stands for the claim's volume; pods have it at the same path."""
    administrator: Path
    """A kubeconfig."""
    operator: subprocess.Popen[bytes]
    operator_log: Path

    @property
    def agents(self) -> Agents:
        return Agents(self.cluster, NAMESPACE)

    def kubectl(self, *words: str) -> str:
        """What kubectl prints.

        Raises:
            AssertionError: it failed.
        """
        return _kubectl(self.administrator, *words)

    def exsearch(self, *words: str) -> str:
        """What our own command prints as the administrator.

        Raises:
            AssertionError: it failed.
        """
        environment = {**os.environ, "KUBECONFIG": str(self.administrator), "COLUMNS": "200"}
        return _said([tool("exsearch"), *words], environment)

    def check(self) -> None:
        """Raises AssertionError, with its words, where the operator or a pod has ended."""
        assert self.operator.poll() is None, self.operator_log.read_text()
        self.kserve.check()


@contextmanager
def machine(folder: Path) -> Iterator[Machine]:
    """Start everything; it ends with the block, all its processes included.

    Args:
        folder: new or empty; its `volume` is what pods mount, and may have been filled.
    """
    crds = crd_folder()
    assert crds is not None, "callers see to it that there are CustomResourceDefinitions"
    volume = folder / "volume"
    places = {name: folder / name for name in ("cluster", "kubeflow", "pods")}
    for place in (volume, *places.values()):
        place.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        cluster = open_cluster(places["cluster"], crds)
        stack.callback(cluster.close)
        administrator = cluster.kubeconfig()
        for part in ("base", "tenant"):
            _kubectl(
                administrator, "apply", "--server-side", "--validate=strict",
                "--kustomize", str(MANIFESTS / "operator" / part),
            )  # fmt: skip
        runs = stack.enter_context(
            kubeflow(
                places["kubeflow"], lambda account: cluster.kubeconfig(f"{NAMESPACE}/{account}")
            )
        )
        kserve = KServeWithPods(cluster, NAMESPACE, places["pods"], {CLAIM: volume})
        stack.callback(kserve.stop)
        stack.enter_context(kserve)
        log = folder / "operator.log"
        operator = stack.enter_context(_operator(cluster, log))
        yield Machine(cluster, runs, kserve, volume, administrator, operator, log)


@contextmanager
def _operator(cluster: Cluster, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The operator's own command, under the account that its Deployment has."""
    account = cluster.kubeconfig("exsearch-system/exsearch-operator")
    command = [tool("exsearch"), "operator", "run", "--kubeconfig", str(account)]
    with log.open("wb") as out:
        process = subprocess.Popen(
            [*command, "--metrics-port", "0"],
            stdout=out, stderr=out, start_new_session=True,
            env={**os.environ, "KUBECONFIG": ""},
        )  # fmt: skip
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def resource(example: Object, machine: Machine, **changes: Object) -> Object:
    """A SearchAgent as an example has it, moved to this machine.

    Args:
        changes: by section of the spec, over the example's own.
    """
    spec = _moved(example["spec"], str(machine.volume))
    spec["pipeline"] |= {"host": machine.kubeflow.url, "retries": 0, "schedule": {"enabled": True}}
    spec["cluster"]["storage"] |= {"root": str(machine.volume), "mount": str(machine.volume)}
    for section, values in changes.items():
        spec[section] = {**spec.get(section, {}), **values}
    return {**example, "spec": spec}


def _moved(value: Any, volume: str) -> Any:
    """A value with every path of the example's mount on this machine's volume."""
    if isinstance(value, dict):
        return {key: _moved(each, volume) for key, each in value.items()}
    if isinstance(value, list):
        return [_moved(each, volume) for each in value]
    if isinstance(value, str) and value.startswith("/mnt/exsearch/"):
        return volume + value.removeprefix("/mnt/exsearch")
    return value


def _kubectl(kubeconfig: Path, *words: str) -> str:
    environment = {**os.environ, "KUBECONFIG": str(kubeconfig)}
    return _said([tool("kubectl"), *words], environment)


def _said(command: list[str], environment: dict[str, str]) -> str:
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
        timeout=300, env=environment,
    )  # fmt: skip
    assert done.returncode == 0, f"{' '.join(command)}: {done.stdout}"
    return done.stdout.strip()
