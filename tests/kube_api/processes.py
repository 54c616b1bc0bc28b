"""A container's own command as a process of this machine."""

from __future__ import annotations

import base64
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kube_api.logs import Log
from kube_api.outcome import Execution, Pod
from kube_api.rest import Rest

_ADDRESSES = ("MASTER_ADDR", "PET_MASTER_ADDR")
_PORTS = ("MASTER_PORT", "PET_MASTER_PORT")


class Process(Execution):
    """A run of a command.

    Args:
        command: program and arguments.
        environment: all of it.
        folder: where it starts.
    """

    def __init__(self, command: list[str], environment: Mapping[str, str], folder: Path) -> None:
        self._command = command
        self._environment = dict(environment)
        self._folder = folder
        self._child: subprocess.Popen[str] | None = None
        self._copier: threading.Thread | None = None

    def start(self, log: Log) -> None:
        # A session of its own: a pod's processes are killed together.
        child = subprocess.Popen(
            self._command,
            env=self._environment,
            cwd=self._folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )

        def copy() -> None:
            for line in child.stdout or ():
                log.write(line)

        self._child = child
        self._copier = threading.Thread(target=copy, daemon=True)
        self._copier.start()

    def wait(self, seconds: float) -> int | None:
        assert self._child is not None, "start() comes first"
        try:
            code = self._child.wait(seconds)
        except subprocess.TimeoutExpired:
            return None
        # A pod's container is gone with all its processes.
        self._signal(signal.SIGKILL)
        if self._copier is not None:
            self._copier.join(5)
        return code if code >= 0 else 128 - code

    def kill(self, number: int) -> None:
        self._signal(number)

    def _signal(self, number: int) -> None:
        if self._child is not None:
            try:
                os.killpg(self._child.pid, number)
            except ProcessLookupError:
                return  # ended already


class Processes:
    """Makes processes of pods.

    There is no DNS: addresses that the training operator sets become 127.0.0.1 with a free port
    for each job. There are no mounts: paths under a `mountPath` in command, arguments and
    environment are moved to local folders; what files say is left alone.

    Args:
        mounts: mount paths and the local folders that stand for them.
        environment: variables on top of a pod's own (`OMP_NUM_THREADS`, …).
        folder: where processes start, and their home.
    """

    def __init__(
        self, rest: Rest, mounts: Mapping[str, Path | str], environment: Mapping[str, str],
        folder: Path,
    ) -> None:  # fmt: skip
        self._rest = rest
        self._mounts = dict(sorted(mounts.items(), key=lambda item: -len(item[0])))
        self._extra = dict(environment)
        self._folder = folder
        self._free: dict[str, int] = {}

    def of(self, pod: Pod) -> Process:
        """The process of a pod's first container.

        Raises:
            KeyError: its command is the image's own, which nothing here knows.
        """
        container = pod["spec"]["containers"][0]
        said = self._environment(pod, container)
        words = [*container["command"], *(container.get("args") or ())]
        command = [self._moved(_expanded(word, said)) for word in words]
        environment = {name: self._moved(value) for name, value in said.items()}
        search = f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}"
        base = {"PATH": search, "HOME": str(self._folder), "LANG": "C.UTF-8"}
        return Process(command, {**base, **environment, **self._extra}, self._folder)

    def _environment(self, pod: Pod, container: Mapping[str, Any]) -> dict[str, str]:
        said: dict[str, str] = {}
        for source in container.get("envFrom") or ():
            prefix = source.get("prefix", "")
            for name, value in self._whole(source).items():
                said[prefix + name] = value
        for variable in container.get("env") or ():
            value = variable.get("value")
            if value is None:
                value = self._value_from(pod, variable.get("valueFrom") or {})
            said[variable["name"]] = _expanded(value, said)
        return self._rewired(pod, said)

    def _rewired(self, pod: Pod, said: dict[str, str]) -> dict[str, str]:
        owners = pod["metadata"].get("ownerReferences") or [{"uid": pod["metadata"]["name"]}]
        job = owners[0]["uid"]
        for name in said:
            if name in _ADDRESSES:
                said[name] = "127.0.0.1"
            elif name in _PORTS:
                said[name] = str(self._port(job))
            elif name == "PET_RDZV_ENDPOINT":
                said[name] = f"127.0.0.1:{self._port(job)}"
        return said

    def _port(self, job: str) -> int:
        if job not in self._free:
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                self._free[job] = probe.getsockname()[1]
        return self._free[job]

    def _whole(self, source: Mapping[str, Any]) -> dict[str, str]:
        if "secretRef" in source:
            return self._secret(source["secretRef"]["name"])
        return self._config(source["configMapRef"]["name"])

    def _value_from(self, pod: Pod, source: Mapping[str, Any]) -> str:
        if "secretKeyRef" in source:
            return self._secret(source["secretKeyRef"]["name"])[source["secretKeyRef"]["key"]]
        if "configMapKeyRef" in source:
            wanted = source["configMapKeyRef"]
            return self._config(wanted["name"])[wanted["key"]]
        path = source["fieldRef"]["fieldPath"]
        found: Any = {"status.podIP": "127.0.0.1", "status.hostIP": "127.0.0.1"}.get(path)
        if found is None:
            found = pod
            for part in path.split("."):
                found = found[part]
        return str(found)

    def _secret(self, name: str) -> dict[str, str]:
        found = self._rest.get("/api/v1/namespaces/{namespace}/secrets", name)
        return {k: base64.b64decode(v).decode() for k, v in (found.get("data") or {}).items()}

    def _config(self, name: str) -> dict[str, str]:
        return self._rest.get("/api/v1/namespaces/{namespace}/configmaps", name).get("data") or {}

    def _moved(self, text: str) -> str:
        for mount, folder in self._mounts.items():
            text = re.sub(rf"(?<![\w./-]){re.escape(mount)}(?![\w.-])", str(folder), text)
        return text


def _expanded(text: str, variables: Mapping[str, str]) -> str:
    """`$(NAME)` replaced, as Kubernetes does in commands and values."""
    return re.sub(r"\$\(([A-Za-z_][\w.-]*)\)", lambda m: variables.get(m[1], m[0]), text)
