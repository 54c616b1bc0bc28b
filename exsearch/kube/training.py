"""Training as a step: here, or in pods of the cluster, with the same job and result."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import PurePosixPath
from typing import Any

from exsearch import storage
from exsearch.config import ClusterConfig, RunConfig
from exsearch.errors import ExSearchError, InputError
from exsearch.kube.blocking import finish
from exsearch.kube.client import Api
from exsearch.kube.launcher import Launcher, Tell
from exsearch.kube.names import Work
from exsearch.kube.operators import operator
from exsearch.kube.scene import Order
from exsearch.training.job import TrainingJob, TrainingResult, finished

Event = dict[str, Any]
"""An event of `exsearch.training.journal`, or `{"event": "cluster", "message": …}`."""


def launch_training(
    job: TrainingJob, config: RunConfig, step: str, tell: Callable[[Event], None] | None = None
) -> TrainingResult:
    """Train where `cluster.training.launcher` says; a finished training is not repeated.

    Args:
        step: names the job in the cluster, together with the run.
        tell: called with every event.

    Raises:
        InputError: the job cannot be used, or the cluster does not accept it.
        ExSearchError: the training failed; the message ends with its last lines.
        KeyboardInterrupt: Ctrl-C or SIGTERM; the job of the cluster has been deleted.
    """
    cluster = config.cluster
    if cluster.training.launcher == "local":
        from exsearch.training.launch import launch

        return launch(job, on_progress=tell)
    fingerprint = job.fingerprint()
    done = finished(job, fingerprint)
    if done is not None:
        return done
    _require_shared(job, cluster)
    path = storage.join(job.output, "job.json")
    storage.write_atomic(path, job.model_dump_json(indent=2) + "\n")
    order = make_order(Work(config.run, step, path, fingerprint), cluster)
    finish(_run(order, tell or (lambda _: None)))
    done = finished(job, fingerprint)
    if done is None:
        raise ExSearchError(
            f"{order.title} has succeeded, but {job.output} holds no result of it. Either the "
            f"pods' {cluster.storage.mount} is another volume than this one's, or the folder "
            f"was emptied since; then delete the {order.title} and rerun the step"
        )
    return done


def make_order(work: Work, cluster: ClusterConfig) -> Order:
    """The job for a piece of work, with its limits.

    Raises:
        InputError: the settings do not fit together.
    """
    chosen = operator(cluster)
    asked = cluster.training
    return Order(
        operator=chosen,
        manifest=chosen.build(work, cluster),
        deadline=asked.deadline,
        queue_deadline=asked.queue_deadline,
        interruptions=asked.backoff_limit,
    )


async def _run(order: Order, tell: Callable[[Event], None]) -> None:
    def note(text: str) -> None:
        tell({"event": "cluster", "message": text})

    async with Api.open() as api:
        await Launcher(api, listener(tell), note).run(order)


def listener(tell: Callable[[Event], None]) -> Tell:
    """What hears the log of the first pod: events are told, an error ends the job.

    torchrun cannot tell a mistake from a lost peer and would start the processes again; but
    what the trainer itself calls an error is one at every try.
    """

    def hear(line: str) -> None:
        event = _event(line)
        if event is None:
            return
        tell(event)
        if event["event"] == "error":
            kind = InputError if event.get("input") else ExSearchError
            raise kind(event["message"])

    return hear


def _event(line: str) -> Event | None:
    """The event a line holds, or None for what libraries print."""
    if not line.startswith('{"event": '):
        return None
    try:
        return json.loads(line)
    except ValueError:
        return None


def _require_shared(job: TrainingJob, cluster: ClusterConfig) -> None:
    """Refuse to start pods that cannot see the job's files.

    Raises:
        InputError: something lies outside of the shared volume.
    """
    mount = cluster.storage.mount
    local = [p for p in (job.output, job.model, job.examples) if not storage.is_remote(p)]
    if local and not cluster.storage.claim:
        raise InputError(
            f"training pods cannot see {', '.join(local)}: put it at a URL, set "
            "cluster.storage.claim to a volume that they share with this step, or set "
            "cluster.training.launcher=local"
        )
    outside = [path for path in local if not PurePosixPath(path).is_relative_to(mount)]
    if outside:
        raise InputError(
            f"training pods see the volume at {mount} only, and this step names "
            f"{', '.join(outside)}. Move the run, the model and the data there "
            "(run, model.path), or set cluster.storage.mount"
        )
