"""Kubeflow Pipelines that runs what was uploaded: the package's own text, a process per run."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import kfp_server
import yaml
from operator_scene import KubeflowWithRuns

TESTS = Path(__file__).resolve().parents[1]


@dataclass
class Running:
    """A run's process."""

    process: subprocess.Popen[bytes]
    log: Path


class KubeflowThatRuns(KubeflowWithRuns):
    """Kubeflow Pipelines whose runs are executed on this machine.

    Args:
        folder: for packages, logs and Kubeflow's own files.
        kubeconfig: gives the environment's KUBECONFIG by a run's service account.
    """

    def __init__(self, folder: Path, kubeconfig: Callable[[str], Path]) -> None:
        super().__init__()
        self.folder = folder
        self._kubeconfig = kubeconfig
        self._packages: dict[str, str] = {}
        self._running: dict[str, Running] = {}

    def upload_version(self, *, query: Any, body: bytes, headers: Any, **more: Any) -> Any:
        made = super().upload_version(query=query, body=body, headers=headers, **more)
        text = kfp_server.uploaded(body, headers["content-type"])
        self._packages[made["pipeline_version_id"]] = text
        return made

    def list_runs(self, *, query: Any, **more: Any) -> Any:
        self.look()
        return super().list_runs(query=query, **more)

    def trigger(self) -> str:
        """The time of the only schedule has come; returns the run's id.

        Raises:
            AssertionError: it is not enabled.
        """
        (schedule,) = self.recurring.values()
        assert schedule["status"] == "ENABLED", "a disabled schedule starts nothing"
        name, now = str(uuid.uuid4()), _now()
        self._running[name] = self._start(name, schedule)
        self.runs[name] = {
            "run_id": name,
            "display_name": f"{schedule['display_name']} {now}",
            "recurring_run_id": schedule["recurring_run_id"],
            "created_at": now,
            "scheduled_at": now,
            "finished_at": None,
            "state": "RUNNING",
            "run_details": {"task_details": []},
        }
        return name

    def _start(self, name: str, schedule: dict[str, Any]) -> Running:
        folder = self.folder / name
        folder.mkdir(parents=True)
        version = schedule["pipeline_version_reference"]["pipeline_version_id"]
        package, parameters = folder / "package.yaml", folder / "parameters.json"
        package.write_text(self._packages[version])
        parameters.write_text(json.dumps(schedule["runtime_config"]["parameters"]))
        log = folder / "log"
        environment = {
            **os.environ,
            "KUBECONFIG": str(self._kubeconfig(schedule["service_account"])),
            "HF_HUB_OFFLINE": "1",
            "PYTHONPATH": str(TESTS),
        }
        command = [sys.executable, "-m", "one_machine.run_package"]
        with log.open("wb") as out:
            process = subprocess.Popen(
                [*command, str(package), str(parameters), str(folder / "kfp")],
                stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=environment,
                start_new_session=True,
            )  # fmt: skip
        return Running(process, log)

    def look(self) -> None:
        """Bring the state of every run up to date."""
        for name, running in self._running.items():
            run = self.runs[name]
            if run["state"] != "RUNNING":
                continue
            code, text = running.process.poll(), running.log.read_text(errors="replace")
            tasks = tasks_done(text, self._packages_of(run))
            run["run_details"] = {
                "task_details": [{"display_name": task, "state": "SUCCEEDED"} for task in tasks]
            }
            if code is not None:
                run["state"] = "SUCCEEDED" if code == 0 else "FAILED"
                run["finished_at"] = _now()

    def _packages_of(self, run: dict[str, Any]) -> str:
        schedule = self.recurring[run["recurring_run_id"]]
        return self._packages[schedule["pipeline_version_reference"]["pipeline_version_id"]]

    def said(self, name: str) -> str:
        """What a run has printed so far."""
        return self._running[name].log.read_text(errors="replace")

    def stop(self) -> None:
        """End every run, with all its processes."""
        for running in self._running.values():
            if running.process.poll() is None:
                os.killpg(running.process.pid, signal.SIGKILL)
                running.process.wait()


def tasks_done(log: str, package: str) -> list[str]:
    """Display names of the tasks that `kfp.local` says it has finished."""
    names = _display_names(next(yaml.safe_load_all(package)))
    finished = set(re.findall(r"Task \S*'([\w-]+)'\S* finished with status \S*SUCCESS", log))
    return [shown for task, shown in names.items() if task in finished]


def _display_names(spec: dict[str, Any]) -> dict[str, str]:
    dags = [spec["root"], *(c for c in spec["components"].values() if "dag" in c)]
    return {
        task: found["taskInfo"]["name"]
        for dag in dags
        for task, found in dag["dag"]["tasks"].items()
    }


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@contextmanager
def kubeflow(folder: Path, kubeconfig: Callable[[str], Path]) -> Iterator[KubeflowThatRuns]:
    """Serve it on a free port of 127.0.0.1; its runs end with the block."""
    state = KubeflowThatRuns(folder, kubeconfig)
    with kfp_server.serving(state):
        try:
            yield state
        finally:
            state.stop()
