"""Names and labels: how a job of the cluster is found again by whoever retries its step."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from exsearch import storage
from exsearch.config import ClusterConfig
from exsearch.records import canonical_json

LONGEST = 50
"""Characters of a job's name. Operators append `-worker-NNN` or `-node-0-NNN`, and what they
make, host names among it, may have 63."""
LONGEST_LABEL = 63
MANAGER = "exsearch"
"""Value of the label `app.kubernetes.io/managed-by` of everything made here."""
MANAGED_BY = "app.kubernetes.io/managed-by"
FINGERPRINT = "exsearch.dev/fingerprint"
"""Annotation: digest of what was asked for; a retry adopts a job with the same one."""
JOB = "exsearch.dev/job"
"""Label of a job's pods, the same under every operator."""
_DIGEST = 8


@dataclass(frozen=True)
class Work:
    """What the pods of one training job are to do."""

    run: str
    """The run's folder or URL."""
    step: str
    """The step of the run, for example `iter-01-train`."""
    job_file: str
    """Path of the `TrainingJob` as the pods see it."""
    fingerprint: str
    """`TrainingJob.fingerprint`."""

    @property
    def name(self) -> str:
        """The name of the job's object."""
        return job_name(self.run, self.step)


def job_name(run: str, step: str) -> str:
    """A name that is the same for every try of a step, and of no other step.

    Returns:
        A DNS-1035 label (the training operator refuses a digit in front) of at most
        `LONGEST` characters: readable words and a digest of both texts.
    """
    digest = storage.digest_bytes(run.encode(), step.encode())[:_DIGEST]
    last = run.rstrip("/").rpartition("/")[2]
    words = _plain(f"{last}-{step}".lower(), r"[^a-z0-9]+")
    if not words[:1].isalpha():
        words = f"run-{words}"
    return f"{words[: LONGEST - _DIGEST - 1].rstrip('-')}-{digest}"


def label_value(text: str) -> str:
    """The nearest text that may be a label's value: its end, where it is too long."""
    return _plain(_plain(text, r"[^A-Za-z0-9_.-]+")[-LONGEST_LABEL:], r"[^A-Za-z0-9_.-]+")


def _plain(text: str, forbidden: str) -> str:
    """The text with hyphens for what is forbidden, and a letter or digit at both ends."""
    return re.sub(forbidden, "-", text).strip("-_.")


def labels(work: Work, cluster: ClusterConfig) -> dict[str, str]:
    """Labels of the job and of its pods; ours win over configured ones."""
    return {
        **cluster.labels,
        "app.kubernetes.io/name": "exsearch",
        "app.kubernetes.io/component": "training",
        "app.kubernetes.io/instance": work.name,
        MANAGED_BY: MANAGER,
        JOB: work.name,
        "exsearch.dev/run": label_value(work.run),
        "exsearch.dev/step": label_value(work.step),
    }


def metadata(work: Work, cluster: ClusterConfig) -> dict[str, Any]:
    """A job's metadata; a LocalQueue's name, where there is one, hands it to Kueue."""
    queue = {"kueue.x-k8s.io/queue-name": cluster.queue} if cluster.queue else {}
    return {
        "name": work.name,
        "namespace": cluster.namespace,
        "labels": {**labels(work, cluster), **queue},
        "annotations": {"exsearch.dev/run": work.run, "exsearch.dev/step": work.step},
    }


def sealed(manifest: dict[str, Any], work: Work) -> dict[str, Any]:
    """The manifest with its fingerprint: of the training, and of the object that runs it.

    More memory after a pod ran out of it is another job, though it trains the same weights.
    """
    digest = storage.digest_bytes(canonical_json(manifest).encode(), work.fingerprint.encode())
    meta = manifest["metadata"]
    annotations = {**meta["annotations"], FINGERPRINT: digest}
    return {**manifest, "metadata": {**meta, "annotations": annotations}}


def fingerprint_of(item: Mapping[str, Any]) -> str | None:
    """The fingerprint of an object in the cluster; None where it is not of our making."""
    meta = item["metadata"]
    if meta.get("labels", {}).get(MANAGED_BY) != MANAGER:
        return None
    return meta.get("annotations", {}).get(FINGERPRINT)
