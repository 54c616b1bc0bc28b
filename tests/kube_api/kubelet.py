"""Plays scheduler and kubelet for the pods of a namespace: by a script, or running their commands.

It registers a node whose kubelet endpoint is a server of its own, so that pod logs come the way
they come in a cluster: through the API server. Init containers count as done, and containers
after the first end when it ends.
"""

from __future__ import annotations

import secrets
import tempfile
import threading
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from kubernetes import client

from kube_api.cluster import Cluster
from kube_api.logs import Log, LogServer
from kube_api.outcome import KILL, TERM, Execution, Outcome, Script, Scripted, script
from kube_api.player import GONE, Player
from kube_api.processes import Processes
from kube_api.rest import NODES, PODS, Object
from kube_api.writing import now


class Kubelet(Player):
    """Runs the pods of a namespace.

    Args:
        run: what pods do, by name or by a function; every pod succeeds at once by default.
        processes: run the pods' own commands as processes of this machine instead.
        mounts: with processes: mount paths and the local folders that stand for them.
        environment: with processes: variables on top of the pods' own.
    """

    def __init__(
        self,
        cluster: Cluster,
        namespace: str,
        run: Script | Mapping[str, Outcome | Iterable[Outcome]] | None = None,
        *,
        processes: bool = False,
        mounts: Mapping[str, Path | str] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(cluster, namespace)
        self.node = f"kubelet-{secrets.token_hex(4)}"
        self._script = run if callable(run) else script(run or {})
        self._folder = tempfile.TemporaryDirectory(prefix="kubelet-")
        self._processes = (
            Processes(self.rest, mounts or {}, environment or {}, Path(self._folder.name))
            if processes
            else None
        )
        self._logs = LogServer(cluster.certificate)
        self._runs: dict[str, _Run] = {}
        self._seen: dict[str, int] = {}

    def __enter__(self) -> Self:
        self._register()
        return super().__enter__()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for run in self._runs.values():
            run.abandon()
        try:
            super().__exit__(kind, error, trace)
            if self._registered():
                self.rest.delete(NODES, self.node)
        finally:
            self._logs.close()
            self._folder.cleanup()

    def tick(self) -> None:
        for pod in self.rest.list(PODS):
            uid = pod["metadata"]["uid"]
            run = self._runs.get(uid)
            if run is None and not pod["metadata"].get("deletionTimestamp"):
                self._take(pod)
            elif run is not None and pod["metadata"].get("deletionTimestamp"):
                run.delete()
        for run in self._runs.values():
            run.check()

    def kill(self, pod: str, number: int = KILL) -> None:
        """Send a signal to a running pod's processes, as the kernel or an operator would."""
        self._running(pod).kill(number)

    def finish(self, pod: str, exit_code: int = 0) -> None:
        """End a scripted pod that runs until it is told."""
        execution = self._running(pod)
        assert isinstance(execution, Scripted), "only a scripted pod can be told to end"
        execution.finish(exit_code)

    def say(self, pod: str, *lines: str) -> None:
        """Write lines to a running pod's log."""
        log = self._current(pod).log
        for line in lines:
            log.write(line)

    def _running(self, pod: str) -> Execution:
        return self._current(pod).execution

    def _current(self, pod: str) -> _Started:
        for run in reversed(self._runs.values()):
            if run.name == pod and run.started is not None:
                return run.started
        raise LookupError(f"pod {pod} is not running here")

    def _take(self, pod: Object) -> None:
        name = pod["metadata"]["name"]
        earlier = self._seen.get(name, 0)
        self._seen[name] = earlier + 1
        outcome = Outcome(exit_code=None)
        if self._processes is None:
            outcome = self._script(pod, earlier)
        run = _Run(self, pod, outcome)
        self._runs[pod["metadata"]["uid"]] = run
        run.start()

    def execution(self, pod: Object, outcome: Outcome) -> Execution:
        """A new run of a pod's container."""
        return Scripted(outcome) if self._processes is None else self._processes.of(pod)

    def log(self, pod: Object, *, restart: bool) -> Log:
        """The log of a container that starts."""
        return self._logs.begin(self._key(pod), restart=restart)

    def waits(self, pod: Object, reason: str) -> None:
        """Let the log of a container that has not started say why."""
        self._logs.waiting(self._key(pod), reason)

    def _key(self, pod: Object) -> tuple[str, str, str]:
        meta = pod["metadata"]
        return meta["namespace"], meta["name"], pod["spec"]["containers"][0]["name"]

    def _register(self) -> None:
        self.rest.create(NODES, {"metadata": {"name": self.node}})
        status = {
            "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": self._logs.port}},
            "conditions": [
                {"type": "Ready", "status": "True", "reason": "KubeletReady", "message": "",
                 "lastHeartbeatTime": now(), "lastTransitionTime": now()}
            ],
        }  # fmt: skip
        self.rest.patch(NODES, f"{self.node}/status", {"status": status})

    def _registered(self) -> bool:
        try:
            return bool(self.rest.get(NODES, self.node))
        except GONE:
            return False  # the server is away: nothing to tidy up
        except client.ApiException:
            return False


class _Started:
    """A container that runs: its execution and its log."""

    def __init__(self, execution: Execution, log: Log) -> None:
        self.execution = execution
        self.log = log


class _Run:
    """One pod's life, in a thread."""

    def __init__(self, kubelet: Kubelet, pod: Object, outcome: Outcome) -> None:
        self._kubelet = kubelet
        self._pod = pod
        self._outcome = outcome
        self._deleted = threading.Event()
        self._abandoned = threading.Event()
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._guarded, daemon=True)
        self.name: str = pod["metadata"]["name"]
        self.started: _Started | None = None

    def start(self) -> None:
        self._thread.start()

    def delete(self) -> None:
        """The pod is to stop: what the kubelet does when it sees a deletion."""
        self._deleted.set()

    def abandon(self) -> None:
        """The kubelet goes away: processes end, the pod's status stays."""
        self._abandoned.set()
        self._thread.join()

    def check(self) -> None:
        """Raise what went wrong in the thread."""
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def _guarded(self) -> None:
        try:
            self._live()
        except _Over:
            return
        except Exception as error:  # noqa: BLE001 - raised by the kubelet's tick
            self._error = error

    def _live(self) -> None:
        if self._outcome.unschedulable:
            self._refuse()
        else:
            self._bind()
            self._waits(self._outcome.waiting or "ContainerCreating")
            if not self._outcome.waiting:
                self._run()
        while not self._deleted.wait(0.05):
            self._still_here()
        self._tell(lambda: self._kubelet.rest.delete(PODS, self.name, gracePeriodSeconds=0,
                   preconditions={"uid": self._pod["metadata"]["uid"]}))  # fmt: skip

    def _run(self) -> None:
        restarts, last = 0, {}
        policy = self._pod["spec"].get("restartPolicy", "Always")
        while True:
            began = now()
            log = self._kubelet.log(self._pod, restart=restarts > 0)
            execution = self._kubelet.execution(self._pod, self._outcome)
            execution.start(log)
            self.started = _Started(execution, log)
            running = {"running": {"startedAt": began}}
            self._status("Running", running, restarts, last)
            code = self._wait(execution)
            log.end()
            self.started = None
            ended = _terminated(code, execution.reason, began)
            again = policy == "Always" or (policy == "OnFailure" and code != 0)
            if not again or self._deleted.is_set():
                self._status("Failed" if code else "Succeeded", ended, restarts, last)
                return
            restarts, last = restarts + 1, ended
            back_off = {"waiting": {"reason": "CrashLoopBackOff"}}
            self._status("Running", back_off, restarts, last)
            self._deleted.wait(0.3)

    def _wait(self, execution: Execution) -> int:
        asked = 0.0
        while (code := execution.wait(0.1)) is None:
            if self._abandoned.is_set():
                execution.kill(KILL)
                execution.wait(10)
                raise _Over
            if self._deleted.is_set():
                if not asked:
                    execution.kill(TERM)
                    asked = time.monotonic()
                grace = self._pod["spec"].get("terminationGracePeriodSeconds", 30)
                if time.monotonic() - asked > grace:
                    execution.kill(KILL)
        return code

    def _bind(self) -> None:
        target = {"apiVersion": "v1", "kind": "Node", "name": self._kubelet.node}
        body = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": self.name},
                "target": target}  # fmt: skip
        self._tell(lambda: self._kubelet.rest.post(PODS, f"{self.name}/binding", body))

    def _refuse(self) -> None:
        message = self._outcome.unschedulable
        condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable",
                     "message": message, "lastTransitionTime": now()}  # fmt: skip
        self._write({"phase": "Pending", "conditions": [condition]})
        about = {**self._pod, "apiVersion": "v1"}
        self._tell(lambda: self._kubelet.rest.event(about, "Pod", "FailedScheduling", message))

    def _waits(self, reason: str) -> None:
        self._kubelet.waits(self._pod, reason)
        self._status("Pending", {"waiting": {"reason": reason}}, 0, {})
        if reason != "ContainerCreating":
            image = self._pod["spec"]["containers"][0].get("image", "")
            text = f'{reason}: image "{image}"'
            about = {**self._pod, "apiVersion": "v1"}
            self._tell(lambda: self._kubelet.rest.event(about, "Pod", "Failed", text))

    def _status(self, phase: str, state: Object, restarts: int, last: Object) -> None:
        running = "running" in state
        yes = "True" if running else "False"
        conditions = [
            {"type": kind, "status": status, "lastTransitionTime": now()}
            for kind, status in (
                ("PodScheduled", "True"),
                ("Initialized", "True"),
                ("ContainersReady", yes),
                ("Ready", yes),
            )
        ]
        containers = [
            {
                "name": container["name"],
                "image": container.get("image", ""),
                "imageID": "",
                "ready": running,
                "started": running,
                "restartCount": restarts,
                "state": state,
                "lastState": last,
            }
            for container in self._pod["spec"]["containers"]
        ]
        done = {"terminated": {"exitCode": 0, "reason": "Completed"}}
        first = [
            {"name": c["name"], "image": c.get("image", ""), "imageID": "", "ready": True,
             "restartCount": 0, "state": done, "lastState": {}}
            for c in self._pod["spec"].get("initContainers") or ()
        ]  # fmt: skip
        self._write(
            {
                "phase": phase,
                "conditions": conditions,
                "containerStatuses": containers,
                "initContainerStatuses": first,
                "hostIP": "127.0.0.1",
                "podIP": "127.0.0.1",
                "startTime": now(),
            }
        )

    def _write(self, status: Object) -> None:
        # Another pod may have taken the name: the uid keeps its status from this one's.
        body = {"metadata": {"uid": self._pod["metadata"]["uid"]}, "status": status}
        self._tell(lambda: self._kubelet.rest.patch(PODS, f"{self.name}/status", body))

    def _tell(self, call: Any) -> None:
        """Tell the server, again and again while it is away; a pod that is gone ends the run."""
        while True:
            try:
                call()
                return
            except GONE:
                pass
            except client.ApiException as error:
                if error.status in (404, 409):
                    self._end()
                    raise _Over from error
                if error.status not in (429, 500, 503):
                    raise
            self._still_here()
            time.sleep(0.1)

    def _still_here(self) -> None:
        if self._abandoned.is_set():
            self._end()
            raise _Over

    def _end(self) -> None:
        if self.started is not None:
            self.started.execution.kill(KILL)
            self.started.log.end()
            self.started = None


class _Over(Exception):
    """The pod, or the kubelet, is gone."""


def _terminated(code: int, reason: str, began: str) -> Object:
    state: Object = {
        "exitCode": code,
        "reason": reason or ("Error" if code else "Completed"),
        "startedAt": began,
        "finishedAt": now(),
    }
    return {"terminated": state}
