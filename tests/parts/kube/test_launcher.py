"""The launcher against an API server, with an operator and a kubelet that are played."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from kube_api.cluster import Cluster
from kube_api.kubelet import Kubelet
from kube_api.outcome import Outcome
from kube_api.training_operator import TrainingOperator
from kubernetes import client

from exsearch.config import ClusterConfig
from exsearch.errors import ExSearchError, InputError
from exsearch.kube.client import Api
from exsearch.kube.launcher import Launcher, Patience
from exsearch.kube.names import Work
from exsearch.kube.scene import Order
from exsearch.kube.training import listener, make_order

pytestmark = pytest.mark.kube

ACCOUNT = "exsearch-launcher"
ROLE = Path(__file__).resolve().parents[3] / "manifests/bases/accounts/launcher.yaml"
QUICK = Patience(stuck=0.5, drain=10, removal=30, farewell=10)


class Site:
    """A namespace in which an account may launch, and nothing else."""

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        self.cluster, self.namespace = cluster, namespace
        self.lines: list[str] = []
        self.notes: list[str] = []
        self.account = f"{namespace}/{ACCOUNT}"
        api = client.CoreV1Api(cluster.client())
        rules = client.RbacAuthorizationV1Api(cluster.client())
        account, role, binding = yaml.safe_load_all(ROLE.read_text())
        api.create_namespaced_service_account(namespace, account)
        rules.create_namespaced_role(namespace, role)
        rules.create_namespaced_role_binding(namespace, binding)
        self.configuration = cluster.client(self.account).configuration

    def order(self, step: str = "align", nodes: int = 2, **training: Any) -> Order:
        settings = {
            "launcher": "pytorchjob",
            "nodes": nodes,
            "resources": {"cpu": "1", "memory": "1Gi"},
            **training,
        }
        config = ClusterConfig.model_validate({"namespace": self.namespace, "training": settings})
        return make_order(Work("runs/test", step, "/mnt/exsearch/job.json", "f00d"), config)

    async def run(self, order: Order, *, patience: float = 30, **options: Any) -> None:
        async with Api(self.configuration, patience) as api:
            given = {"patience": QUICK, "on_line": self.lines.append, **options}
            await Launcher(api, on_note=self.notes.append, **given).run(order)

    def jobs(self, plural: str = "pytorchjobs") -> dict[str, Any]:
        group, version = {
            "pytorchjobs": ("kubeflow.org", "v1"),
            "trainjobs": ("trainer.kubeflow.org", "v1alpha1"),
        }[plural]
        found = self.cluster.custom.list_namespaced_custom_object(
            group, version, self.namespace, plural
        )
        return {item["metadata"]["name"]: item for item in found["items"]}

    def pods(self) -> list[str]:
        found = self.cluster.core.list_namespaced_pod(self.namespace)
        return sorted(pod.metadata.name for pod in found.items)

    def running(self) -> list[str]:
        found = self.cluster.core.list_namespaced_pod(self.namespace)
        return [pod.metadata.name for pod in found.items if pod.status.phase == "Running"]


@pytest.fixture
def site(cluster: Cluster, namespace: str) -> Site:
    return Site(cluster, namespace)


@pytest.fixture
def operator(cluster: Cluster, namespace: str) -> Iterator[TrainingOperator]:
    with TrainingOperator(cluster, namespace) as playing:
        yield playing


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    """Whatever happened, the launcher has no thread (the players' end with their blocks)."""
    yield
    assert not [t for t in threading.enumerate() if t.name.startswith("kube")]


async def until(there: Callable[[], object], seconds: float = 20) -> None:
    """Wait for something to be so."""
    end = time.monotonic() + seconds
    while not await asyncio.to_thread(there):
        assert time.monotonic() < end, "it did not come to pass"
        await asyncio.sleep(0.05)


async def cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_job_succeeds_and_is_not_repeated(site: Site, operator: object) -> None:
    order = site.order()
    said = [f"line {number}" for number in range(40)]
    with Kubelet(site.cluster, site.namespace, {"*-worker-0": Outcome(log=said)}):
        await site.run(order)
    assert site.lines == said
    [job] = site.jobs().values()
    await site.run(order)
    assert [j["metadata"]["uid"] for j in site.jobs().values()] == [job["metadata"]["uid"]]
    assert site.lines == said
    assert "succeeded" in site.notes[-1]


async def test_a_failure_names_the_pod_its_code_and_its_last_words(
    site: Site, operator: object
) -> None:
    order = site.order()
    failing = Outcome(log=["epoch 1", "ValueError: no such layer"], exit_code=1, seconds=1)
    script = {"*-worker-1": failing, "*-worker-0": Outcome(exit_code=None)}
    with Kubelet(site.cluster, site.namespace, script), pytest.raises(ExSearchError) as caught:
        await site.run(order)
    told = str(caught.value)
    assert f"{order.name}-worker-1 ended with exit code 1" in told
    assert told.splitlines()[-2:] == ["epoch 1", "ValueError: no such layer"]
    assert order.name in site.jobs()  # for whoever wants to look at it


async def test_an_error_of_the_trainer_ends_the_job_at_once(site: Site, operator: object) -> None:
    event = '{"event": "error", "message": "no examples in e.jsonl", "input": true}'
    script = {"*": Outcome(exit_code=None), "*-worker-0": Outcome(log=[event], exit_code=None)}
    events: list[dict[str, Any]] = []
    with Kubelet(site.cluster, site.namespace, dict(reversed(script.items()))):
        with pytest.raises(InputError, match=r"no examples in e\.jsonl"):
            await site.run(site.order(), on_line=listener(events.append))
        await until(lambda: not site.pods())
    assert [e["event"] for e in events] == ["error"]
    assert not site.jobs()


async def test_a_retry_adopts_the_job_of_the_try_before(site: Site, operator: object) -> None:
    order = site.order()
    with Kubelet(site.cluster, site.namespace, {"*": Outcome(exit_code=None)}) as kubelet:
        first = asyncio.create_task(site.run(order, keep=True))
        await until(lambda: len(site.pods()) == 2)
        await cancelled(first)
        [job] = site.jobs().values()
        second = asyncio.create_task(site.run(order))
        await until(lambda: any("there already" in note for note in site.notes))
        for index in (0, 1):
            await asyncio.to_thread(_eventually, kubelet.finish, f"{order.name}-worker-{index}")
        await second
    assert [j["metadata"]["uid"] for j in site.jobs().values()] == [job["metadata"]["uid"]]


def _eventually(act: Callable[[str], object], pod: str) -> None:
    """Do something to a pod as soon as it runs."""
    end = time.monotonic() + 20
    while True:
        try:
            act(pod)
        except LookupError:
            assert time.monotonic() < end
            time.sleep(0.05)
        else:
            return


@pytest.mark.parametrize("change", ["failed", "settings"])
async def test_a_job_that_cannot_be_adopted_is_made_anew(
    site: Site, operator: object, change: str
) -> None:
    order = site.order()
    script = {"*": [Outcome(exit_code=1 if change == "failed" else None), Outcome()]}
    with Kubelet(site.cluster, site.namespace, script):
        if change == "failed":
            with pytest.raises(ExSearchError):
                await site.run(order)
        else:
            first = asyncio.create_task(site.run(order, keep=True))
            await until(lambda: len(site.running()) == 2)
            await cancelled(first)
            order = site.order(environment={"NCCL_DEBUG": "INFO"})
        [before] = site.jobs().values()
        await site.run(order)
    [after] = site.jobs().values()
    assert after["metadata"]["uid"] != before["metadata"]["uid"]
    assert after["metadata"]["name"] == before["metadata"]["name"]


async def test_a_foreign_job_of_that_name_is_left_alone(site: Site) -> None:
    order = site.order()
    meta = {"name": order.name, "namespace": site.namespace}
    site.cluster.custom.create_namespaced_custom_object(
        "kubeflow.org", "v1", site.namespace, "pytorchjobs", {**order.manifest, "metadata": meta}
    )
    with pytest.raises(InputError, match="not ours"):
        await site.run(order)
    assert order.name in site.jobs()


async def test_a_cancelled_step_leaves_nothing_behind(site: Site, operator: object) -> None:
    with Kubelet(site.cluster, site.namespace, {"*": Outcome(exit_code=None)}):
        task = asyncio.create_task(site.run(site.order()))
        await until(lambda: len(site.pods()) == 2)
        await cancelled(task)
        assert not site.jobs()
        await until(lambda: not site.pods())


async def test_the_api_server_may_restart_meanwhile(site: Site, operator: object) -> None:
    order = site.order(nodes=1)
    pod = f"{order.name}-worker-0"
    script = {"*": Outcome(log=["a", "b"], exit_code=None)}
    with Kubelet(site.cluster, site.namespace, script) as kubelet:
        task = asyncio.create_task(site.run(order))
        await until(lambda: site.lines == ["a", "b"])
        site.cluster.stop()
        kubelet.say(pod, "c")
        await asyncio.sleep(1)
        site.cluster.start()
        kubelet.say(pod, "d")
        await until(lambda: len(site.lines) >= 4)
        kubelet.finish(pod)
        await task
    assert site.lines == ["a", "b", "c", "d"]


async def test_a_server_that_stays_away_is_told(site: Site) -> None:
    site.cluster.stop()
    try:
        with pytest.raises(ExSearchError, match="did not create pytorchjobs"):
            await site.run(site.order(), patience=1)
    finally:
        site.cluster.start()


async def test_what_may_pass_is_tried_again(site: Site, operator: object) -> None:
    mine = f"system:serviceaccount:{site.namespace}:{ACCOUNT}"
    begun = time.monotonic()
    for verb, resource, status, after in (
        ("create", "pytorchjobs", 429, 1),
        ("create", "pytorchjobs", 503, None),
        ("list", "pods", 500, None),
        ("watch", "pytorchjobs", 502, None),
        ("get", "pods", 504, None),  # the log
    ):
        site.cluster.fail(
            lambda r, verb=verb, resource=resource: (
                (r.user, r.verb, r.resource) == (mine, verb, resource)
            ),
            status, times=2 if after is None else 1, retry_after=after,
        )  # fmt: skip
    with Kubelet(site.cluster, site.namespace, {"*": Outcome(log=["heard"])}):
        await site.run(site.order())
    assert site.lines == ["heard"]
    assert time.monotonic() - begun > 1  # Retry-After was kept to


async def test_a_forgotten_history_is_listed_again(site: Site, operator: object) -> None:
    order = site.order(nodes=1)
    with Kubelet(site.cluster, site.namespace, {"*": Outcome(exit_code=None)}) as kubelet:
        task = asyncio.create_task(site.run(order))
        await until(lambda: any(p.endswith("-0") for p in site.pods()))
        site.cluster.expire()
        await asyncio.to_thread(_eventually, kubelet.finish, f"{order.name}-worker-0")
        await task


@pytest.mark.parametrize(
    ("outcome", "settings", "expected"),
    [
        (
            Outcome(unschedulable="0/3 nodes are available: 3 Insufficient nvidia.com/gpu."),
            {"queue_deadline": 8},
            r"did not start within 8 seconds[\s\S]*Unschedulable\): 0/3 nodes are available",
        ),
        (Outcome(waiting="ImagePullBackOff"), {}, r"worker-\d cannot start \(ImagePullBackOff\)"),
        (Outcome(exit_code=None), {"deadline": 2}, r"(deadline)"),
        (
            Outcome(exit_code=137, reason="OOMKilled"),
            {},
            r"OOMKilled[\s\S]*training\.resources\.memory",
        ),
        (
            Outcome(exit_code=137),
            {"backoff_limit": 1, "nodes": 1},
            r"2 pods were ended from outside, more than",
        ),
    ],
    ids=["unschedulable", "image", "deadline", "memory", "interrupted"],
)
async def test_a_job_past_hope_is_ended_with_the_reason(
    site: Site, operator: object, outcome: Outcome, settings: dict[str, Any], expected: str
) -> None:
    with Kubelet(site.cluster, site.namespace, {"*": outcome}):
        with pytest.raises(ExSearchError, match=expected):
            await site.run(site.order(**settings))
        # The operator ends a job at its deadline by itself, and it stays to be looked at.
        if "deadline" not in settings:
            await until(lambda: not site.jobs() and not site.pods())


async def test_without_an_operator_the_queue_deadline_holds(site: Site) -> None:
    with pytest.raises(ExSearchError, match="No pod was made"):
        await site.run(site.order(queue_deadline=1))
    assert not site.jobs()


async def test_a_killed_pod_is_replaced_and_the_job_goes_on(site: Site, operator: object) -> None:
    order = site.order()
    script = {"*": Outcome(exit_code=None)}
    with Kubelet(site.cluster, site.namespace, script) as kubelet:
        task = asyncio.create_task(site.run(order))
        await until(lambda: len(site.pods()) == 2)
        await asyncio.to_thread(_eventually, kubelet.kill, f"{order.name}-worker-1")
        await until(lambda: f"{order.name}-worker-1" not in site.pods())
        await until(lambda: len(site.pods()) == 2)
        for index in (0, 1):
            await asyncio.to_thread(_eventually, kubelet.finish, f"{order.name}-worker-{index}")
        await task


async def test_a_job_that_an_interruption_brought_down_is_made_again(
    site: Site, operator: object
) -> None:
    """The first pod keeps the rendezvous: without it the others fail by themselves."""
    order = site.order()
    script = {
        "*-worker-0": [Outcome(exit_code=137, seconds=0.5), Outcome(exit_code=None), Outcome()],
        "*-worker-1": [Outcome(exit_code=1, seconds=2.5), Outcome()],
    }
    with Kubelet(site.cluster, site.namespace, script):
        await site.run(order)
    assert any("is made again" in note for note in site.notes)


async def test_warnings_are_told_early(site: Site) -> None:
    order = site.order(queue_deadline=3)
    task = asyncio.create_task(site.run(order))
    await until(site.jobs)
    about = site.jobs()[order.name]
    event = {
        "metadata": {"generateName": "w", "name": "w1"},
        "type": "Warning",
        "reason": "FailedCreatePod",
        "message": "violates PodSecurity",
        "involvedObject": {
            "kind": "PyTorchJob", "name": order.name, "namespace": site.namespace,
            "uid": about["metadata"]["uid"], "apiVersion": "kubeflow.org/v1",
        },
    }  # fmt: skip
    site.cluster.core.create_namespaced_event(site.namespace, event)
    await until(lambda: any("violates PodSecurity" in note for note in site.notes))
    with pytest.raises(ExSearchError, match="violates PodSecurity"):
        await task


async def test_a_train_job_is_followed_as_well(site: Site) -> None:
    order = site.order(launcher="trainjob")
    with Kubelet(site.cluster, site.namespace, {"*": Outcome(log=["hello"], seconds=1)}):
        task = asyncio.create_task(site.run(order))
        await until(lambda: site.jobs("trainjobs"))
        await asyncio.to_thread(_play_trainer, site, order)
        await task
    assert site.lines == ["hello"]


def _play_trainer(site: Site, order: Order) -> None:
    """What Trainer and JobSet make of a TrainJob, as far as the launcher looks at it."""
    labels = {
        "jobset.sigs.k8s.io/jobset-name": order.name,
        "batch.kubernetes.io/job-completion-index": "0",
    }
    container = {"name": "node", "image": "trainer:1", "command": ["true"]}
    name = f"{order.name}-node-0-0-x7f2q"
    site.cluster.core.create_namespaced_pod(
        site.namespace,
        {
            "metadata": {"name": name, "labels": labels},
            "spec": {"containers": [container], "restartPolicy": "Never"},
        },
    )
    end = time.monotonic() + 20
    while site.cluster.core.read_namespaced_pod(name, site.namespace).status.phase != "Succeeded":
        assert time.monotonic() < end
        time.sleep(0.1)
    done = {
        "type": "Complete", "status": "True", "reason": "JobsCompleted", "message": "done",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }  # fmt: skip
    site.cluster.custom.patch_namespaced_custom_object_status(
        "trainer.kubeflow.org", "v1alpha1", site.namespace, "trainjobs", order.name,
        {"status": {"conditions": [done]}},
    )  # fmt: skip


async def test_the_role_holds_exactly_what_is_used(site: Site, operator: object) -> None:
    """Every verb of the Role is used, and (the server enforces it) no other."""
    mine = f"system:serviceaccount:{site.namespace}:{ACCOUNT}"
    before = len(site.cluster.requests)
    order = site.order()
    with Kubelet(site.cluster, site.namespace, {"*": [Outcome(exit_code=1), Outcome()]}):
        with pytest.raises(ExSearchError):
            await site.run(order)
        await site.run(order)
    used = {
        (r.group, f"{r.resource}/{r.subresource}" if r.subresource else r.resource, r.verb)
        for r in site.cluster.requests[before:]
        if r.user == mine
    }
    used |= {("trainer.kubeflow.org", "trainjobs", v) for g, r, v in used if r == "pytorchjobs"}
    role = next(d for d in yaml.safe_load_all(ROLE.read_text()) if d["kind"] == "Role")
    held = {
        (group, resource, verb)
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    assert used == held


@pytest.mark.parametrize(
    "attempt",
    [
        lambda core, space: core.list_namespaced_secret(space),
        lambda core, space: core.list_namespaced_pod("default"),
        lambda core, space: core.list_node(),
        lambda core, space: core.delete_collection_namespaced_pod(space),
    ],
    ids=["secrets", "other namespaces", "nodes", "pods"],
)
def test_the_launcher_is_refused_what_it_does_not_need(
    site: Site, attempt: Callable[..., Awaitable[None]]
) -> None:
    core = client.CoreV1Api(site.cluster.client(site.account))
    with pytest.raises(client.ApiException) as caught:
        attempt(core, site.namespace)
    assert caught.value.status == 403


async def test_a_refusal_names_the_account_and_the_verb(site: Site) -> None:
    order = site.order()
    stranger = f"{site.namespace}/default"
    site.configuration = site.cluster.client(stranger).configuration
    expected = rf"system:serviceaccount:{site.namespace}:default may not create pytorchjobs"
    with pytest.raises(InputError, match=expected):
        await site.run(order)


async def test_a_cluster_without_the_operator_is_told(site: Site) -> None:
    order = site.order()
    unknown = order.operator.kind.__class__("kubeflow.org", "v9", "pytorchjobs", "The operator")
    other = order.operator.__class__(**{**vars(order.operator), "kind": unknown})
    with pytest.raises(InputError, match="The operator is not installed"):
        await site.run(Order(**{**vars(order), "operator": other}))


async def test_the_restricted_level_admits_the_pods(site: Site, operator: object) -> None:
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    site.cluster.core.patch_namespace(site.namespace, {"metadata": {"labels": labels}})
    with Kubelet(site.cluster, site.namespace):
        await site.run(site.order())
