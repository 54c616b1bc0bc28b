"""A real alignment on two nodes: the pods' own commands run as processes of this machine."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from kube_api.cluster import Cluster
from kube_api.kubelet import Kubelet
from kube_api.training_operator import TrainingOperator
from training_world import make_job, make_world, weights_of
from transformers import AutoModelForCausalLM

from exsearch.config import RunConfig
from exsearch.kube.names import job_name
from exsearch.kube.training import launch_training
from exsearch.training.job import TrainingJob
from exsearch.training.plan import plan
from exsearch.training.run import run

pytestmark = [pytest.mark.kube, pytest.mark.timeout(1800)]

EPOCHS, STEPS = 4, 10  # 60 examples seen, six a step
HERE = {
    # All pods are on this machine, and it has no name that needs to be found.
    "PET_LOCAL_ADDR": "127.0.0.1",
    "GLOO_SOCKET_IFNAME": "lo",
    "OMP_NUM_THREADS": "1",
    # Where DeepSpeed has built its extension before.
    "HOME": str(Path.home()),
}


def settings(volume: Path, namespace: str) -> RunConfig:
    training = {
        "launcher": "pytorchjob",
        "nodes": 2,
        "resources": {"cpu": "1", "memory": "1Gi"},
        "queue_deadline": 900,
    }
    storage = {"mount": str(volume), "root": str(volume)}
    cluster = {"namespace": namespace, "training": training, "storage": storage}
    return RunConfig.model_validate({"run": str(volume / "runs/test"), "cluster": cluster})


@pytest.fixture(scope="module")
def volume(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shared volume, with a model and examples."""
    return make_world(tmp_path_factory.mktemp("volume"))


def aligned(volume: Path, name: str, **options: object) -> TrainingJob:
    return make_job(volume, volume / name, epochs=EPOCHS, save_steps=2, **options)


class Witness:
    """Hears the events, and kills a pod at a step, once."""

    def __init__(self, kubelet: Kubelet, pod: str, at: int | None) -> None:
        self.events: list[dict[str, Any]] = []
        self._kubelet, self._pod, self._at = kubelet, pod, at

    def __call__(self, event: dict[str, Any]) -> None:
        self.events.append(event)
        if self._at is not None and event["event"] == "step" and event["step"] >= self._at:
            self._at = None
            kill(self._kubelet, self._pod)

    def steps(self, kind: str) -> list[int]:
        return [event["step"] for event in self.events if event["event"] == kind]


def kill(kubelet: Kubelet, pod: str) -> None:
    """Kill a pod with all its processes, as the kernel does: torchrun's have their own sessions."""
    agent = psutil.Process(kubelet._running(pod)._child.pid)
    family = agent.children(recursive=True)
    kubelet.kill(pod)
    end(family)


def end(family: list[psutil.Process]) -> None:
    for process in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()


@pytest.fixture
def nothing_left(volume: Path) -> Iterator[None]:
    """However a test ends, no process works on the volume after it."""
    yield
    for process in psutil.process_iter(["cmdline"]):
        if any(str(volume) in word for word in process.info["cmdline"] or ()):
            end([process])


@pytest.mark.usefixtures("nothing_left")
@pytest.mark.parametrize("kill_at", [None, 5], ids=["left alone", "a worker killed"])
def test_two_nodes_align_a_model(
    cluster: Cluster,
    namespace: str,
    volume: Path,
    monkeypatch: pytest.MonkeyPatch,
    kill_at: int | None,
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(cluster.kubeconfig()))
    config = settings(volume, namespace)
    job = aligned(volume, f"killed-{kill_at}", zero_stage=3)
    with (
        TrainingOperator(cluster, namespace),
        Kubelet(cluster, namespace, processes=True, environment=HERE) as kubelet,
    ):
        witness = Witness(kubelet, f"{job_name(config.run, 'align')}-worker-1", kill_at)
        result = launch_training(job, config, "align", witness)

    begun, taken = witness.steps("start"), witness.steps("step")
    if kill_at is None:
        assert (begun, taken) == ([0], list(range(1, STEPS + 1)))
    else:
        assert begun[0] == 0
        assert begun[-1] > 0  # gone on, not begun again
        assert sorted(set(taken)) == list(range(1, STEPS + 1))
    assert result.steps == STEPS
    AutoModelForCausalLM.from_pretrained(result.checkpoint)
    log = Path(result.checkpoint).parent / "log.jsonl"
    assert [json.loads(line)["step"] for line in log.open()] == list(range(1, STEPS + 1))

    # The very weights that one process makes in one go.
    alone = aligned(volume, f"alone-{kill_at}")
    expected = weights_of(run(alone, plan(alone), alone.fingerprint()).checkpoint)
    for name, tensor in weights_of(result.checkpoint).items():
        torch.testing.assert_close(tensor, expected[name], rtol=0, atol=1e-5, msg=name)

    heard = len(witness.events)
    assert launch_training(job, config, "align", witness) == result
    assert len(witness.events) == heard  # finished: nothing is asked of the cluster
