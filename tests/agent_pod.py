"""Plays kubelet for the agent's pod: the manifests' own containers, as processes here.

Commands, arguments, environment, ports and probes are those of the rendered ServingRuntime and
InferenceService. Only what a machine without containers must change is changed: ports become
free ones, mount paths become folders, an image's entry point is read from its Containerfile.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import yaml
from manifest_checks import ROOT, Object, agent_pod, build, named

from exsearch.retrieval.kernel import cache_folder
from exsearch.serving.sidecar import free_port


@dataclass
class Container:
    """One container of the pod."""

    spec: Object
    command: list[str]
    environment: dict[str, str]
    log: Path
    process: subprocess.Popen[bytes] | None = None

    @property
    def name(self) -> str:
        return str(self.spec["name"])

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command,
                env=self.environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def said(self) -> str:
        return self.log.read_text(errors="replace")


@dataclass
class Pod:
    """The agent's pod."""

    containers: dict[str, Container]
    ports: dict[int, int]
    """Container port: port here."""
    first: list[Container] = field(default_factory=list)
    """Containers that run before those, one after the other."""

    @property
    def url(self) -> str:
        """The one port that the pod exposes."""
        [port] = [
            p["containerPort"] for c in self.containers.values() for p in c.spec.get("ports", [])
        ]
        return f"http://127.0.0.1:{self.ports[port]}"

    @property
    def retriever_url(self) -> str:
        return f"http://127.0.0.1:{self.ports[8893]}"

    def probe(self, name: str, kind: str) -> bool:
        """Whether a container's probe succeeds now."""
        container = self.containers[name]
        probe = container.spec[kind]
        timeout = probe.get("timeoutSeconds", 1)
        if "exec" in probe:
            command = [self.here(part) for part in probe["exec"]["command"]]
            command[0] = sys.executable if command[0] == "python" else command[0]
            done = subprocess.run(command, capture_output=True, timeout=timeout + 5)
            return done.returncode == 0
        action = probe["httpGet"]
        try:
            answer = httpx.get(
                f"http://127.0.0.1:{self.ports[action['port']]}{action['path']}", timeout=timeout
            )
        except httpx.TransportError:
            return False
        return answer.status_code < 400

    def here(self, text: str) -> str:
        """A text of the manifests with this machine's ports."""
        for there, port in self.ports.items():
            text = re.sub(rf"\b{there}\b", str(port), text)
        return text

    def await_probe(self, name: str, kind: str, *, succeeds: bool = True) -> None:
        """Wait as long as the kubelet would."""
        probe = self.containers[name].spec[kind]
        patience = probe["periodSeconds"] * max(probe.get("failureThreshold", 3), 6)
        end = time.monotonic() + min(patience, 240)
        while self.probe(name, kind) is not succeeds:
            process = self.containers[name].process
            assert process is None or process.poll() is None, self.containers[name].said()
            assert time.monotonic() < end, self.containers[name].said()
            time.sleep(0.3)

    def terminate(self) -> dict[str, int]:
        """SIGTERM to every container at once, as a deleted pod gets it; their exit codes."""
        for container in self.containers.values():
            if container.process is not None and container.process.poll() is None:
                container.process.send_signal(signal.SIGTERM)
        return {
            name: container.process.wait(60)
            for name, container in self.containers.items()
            if container.process is not None
        }

    def kill(self) -> None:
        for container in (*self.first, *self.containers.values()):
            if container.process is not None and container.process.poll() is None:
                os.killpg(container.process.pid, signal.SIGKILL)
                container.process.wait()


def entry_point(image: str) -> list[str]:
    """What an image runs, from its Containerfile."""
    role = image.partition(":")[0].rpartition("/")[2]
    text = (ROOT / "images" / role / "Containerfile").read_text()
    [line] = re.findall(r"^ENTRYPOINT (\[.*\])$", text, re.MULTILINE)
    name, *more = yaml.safe_load(line)
    return [str(Path(sys.executable).with_name(name)), *more]


@contextmanager
def agent(
    overlay: str, folder: Path, mounts: Mapping[str, Path], change: Mapping[str, Any]
) -> Iterator[Pod]:
    """Start an overlay's agent.

    Args:
        mounts: folders by mount path.
        change: what this machine's run.yaml has differently, section by section.
    """
    objects = build(overlay)
    run = yaml.safe_load(named(objects, "ConfigMap", "exsearch-run")["data"]["run.yaml"])
    for section, values in change.items():
        run[section] = {**run.get(section, {}), **values}
    pod = make(agent_pod(objects)["spec"], yaml.safe_dump(run), folder, mounts)
    for container in pod.containers.values():
        container.start()
    try:
        yield pod
    finally:
        pod.kill()


def make(spec: Object, settings: str, folder: Path, mounts: Mapping[str, Path]) -> Pod:
    """A pod whose containers have not been started.

    Args:
        spec: of the pod.
        settings: the run.yaml that its ConfigMap has.
        folder: for its files, its own.
        mounts: folders by mount path.
    """
    pod = Pod({}, {8080: free_port(), 8893: free_port()})
    etc = folder / "etc"
    etc.mkdir(parents=True)
    (etc / "run.yaml").write_text(settings)
    places = {"/etc/exsearch": etc, **mounts}
    for container in spec.get("initContainers", []):
        pod.first.append(_container(container, pod, places, folder))
    for container in spec["containers"]:
        pod.containers[container["name"]] = _container(container, pod, places, folder)
    return pod


def _container(spec: Object, pod: Pod, places: Mapping[str, Path], folder: Path) -> Container:
    mounted = {mount["mountPath"] for mount in spec["volumeMounts"]}
    command = list(spec.get("command") or entry_point(spec["image"]))
    command[0] = sys.executable if command[0] == "python" else command[0]
    for argument in spec["args"]:
        for path in sorted(places, key=len, reverse=True):
            if path in argument:
                assert path in mounted, f"{spec['name']} has no mount at {path}"
                argument = argument.replace(path, str(places[path]))
        command.append(pod.here(argument))
    home = folder / f"tmp-{spec['name']}"
    home.mkdir()
    given = {e["name"]: e["value"] for e in spec.get("env", []) if "value" in e}
    environment = {
        "PATH": os.environ["PATH"],
        "TOKENIZERS_PARALLELISM": "false",
        **given,
        "HOME": str(home) if given.get("HOME") == "/tmp" else os.environ["HOME"],
    }
    environment["EXSEARCH_CACHE"] = str(cache_folder())  # as the images' own ENV names one
    return Container(spec, command, environment, folder / f"{spec['name']}.log")
