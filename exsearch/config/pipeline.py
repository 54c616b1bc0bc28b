"""Settings of the pipeline: its shape, its server, its schedule."""

from __future__ import annotations

from pydantic import Field

from exsearch.config.section import Section


class ScheduleConfig(Section):
    """The recurring run."""

    cron: str = "0 0 3 * * 6"
    """Six fields, seconds first, as Kubeflow Pipelines reads them: Saturdays at three."""
    enabled: bool = True
    """A disabled schedule is kept and starts nothing."""
    max_concurrency: int = Field(default=1, ge=1, le=10)
    """Runs of this schedule at one time; two would race for one champion."""
    catchup: bool = False
    """Start the runs that were missed while the server was away."""


class PipelineConfig(Section):
    """The recurring E&M pipeline on Kubeflow Pipelines."""

    name: str = "exsearch-em"
    """Name of the pipeline, its recurring run and the prefix of its runs."""
    experiment: str = "exsearch"
    """Experiment its runs belong to."""
    host: str = "http://127.0.0.1:8888"
    """Address of the Kubeflow Pipelines API."""
    multi_user: bool = False
    """The server keeps profiles apart: experiments and runs belong to `cluster.namespace`."""
    token_env: str = "KFP_TOKEN"
    """Environment variable with a bearer token for it, if it wants one."""
    index_shards: int = Field(default=4, ge=1)
    """Pods that encode passages."""
    rollout_shards: int = Field(default=4, ge=1)
    """Pods that sample in each round."""
    parallelism: int = Field(default=0, ge=0)
    """Shards at one time; 0: all."""
    retries: int = Field(default=2, ge=0)
    """Times a failed step is tried again; every step goes on where it stopped."""
    backoff: str = "60s"
    """Wait before the first retry; doubled each time, an hour at most."""
    step_timeout: int = Field(default=86_400, ge=60)
    """Seconds one step's pod may run."""
    schedule: ScheduleConfig = ScheduleConfig()
