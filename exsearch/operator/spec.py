"""What a `SearchAgent` asks for: the settings of a run, and how its agent is kept.

Every section of `exsearch.config.RunConfig` is a field of the spec, with the same names, so that
a run.yaml becomes a SearchAgent by indenting it. Two settings are the operator's own: `run` (each
run of the schedule has its folder) and `cluster.namespace` (the resource's).
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, ValidationError

from exsearch.config import RunConfig, Section
from exsearch.errors import InputError


class CanaryConfig(Section):
    """How a newly promoted model earns all the traffic (Knative mode; elsewhere it gets it at
    once, and the budget is watched all the same)."""

    percent: int = Field(default=10, ge=1, le=99)
    """Its share of the requests while it is tried."""
    minutes: float = Field(default=30.0, ge=0.0)
    """How long it must keep within its budget."""
    min_requests: int = Field(default=50, ge=0)
    """Requests it must have answered by then; until it has, it goes on being tried."""
    ready_minutes: float = Field(default=60.0, gt=0.0)
    """How long its pods may be without being ready; after that it is withdrawn."""
    max_error_rate: float = Field(default=0.02, ge=0.0, le=1.0)
    """Largest share of 5xx answers."""
    max_latency: float = Field(default=20.0, gt=0.0)
    """Largest 95th percentile of the seconds to an answer."""
    prometheus: str = "http://prometheus-operated.monitoring.svc:9090"
    """Where the figures are read."""


class KeepingConfig(Section):
    """How the agent is kept: the fields of the spec that are no settings of a run."""

    suspend: bool = False
    """Start no further runs. What serves goes on serving."""
    pinned: str = ""
    """Serve this model (a path under `cluster.storage.root`, or a URL), whatever is promoted."""
    canary: CanaryConfig | None = None
    """Try a promoted model on part of the traffic first; none: it gets all at once."""
    history: int = Field(default=10, ge=1, le=50)
    """Promotions remembered in the status."""
    on_delete: Literal["Retain", "Delete"] = "Retain"
    """What becomes of the claim with models and indexes when the resource is deleted."""


KEEPING = frozenset(KeepingConfig.model_fields)


def read_spec(name: str, namespace: str, spec: dict[str, Any]) -> tuple[RunConfig, KeepingConfig]:
    """The settings of the agent's runs, and how it is kept.

    Raises:
        InputError: naming the fields at fault. The API server refuses most of them already.
    """
    settings = {key: value for key, value in spec.items() if key not in KEEPING}
    keeping = {key: value for key, value in spec.items() if key in KEEPING}
    cluster = {**settings.get("cluster", {}), "namespace": namespace}
    try:
        run = RunConfig.model_validate({**settings, "cluster": cluster})
        return run, KeepingConfig.model_validate(keeping)
    except ValidationError as error:
        problems = "; ".join(
            f"spec.{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()
        )
        raise InputError(f"SearchAgent {namespace}/{name}: {problems}") from error
