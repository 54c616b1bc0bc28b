"""Kubeflow Pipelines' API (v2beta1): put the pipeline there, start runs, keep one schedule.

Everything is told apart by name and content: the same pipeline is uploaded once, a changed
one becomes a new version, and a schedule is made, left alone, or replaced; never doubled.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import kfp_server_api as api
from urllib3.exceptions import HTTPError

from exsearch.config import PipelineConfig, RunConfig
from exsearch.errors import ExSearchError
from exsearch.pipelines.client import AlreadyThere, NotThere, TimelyClient, told
from exsearch.pipelines.em import compile_to, parameter
from exsearch.storage import digest_bytes

PAGE = 100
"""Entries asked for at a time."""
DEADLINE = 60.0
"""Seconds for which one answer is waited for."""


@dataclass(frozen=True)
class Version:
    """One uploaded version of the pipeline."""

    pipeline_id: str
    version_id: str
    name: str
    """`exsearch-em-` and the digest of the compiled pipeline."""
    new: bool
    """It was uploaded just now."""


@dataclass(frozen=True)
class Scheduled:
    """The recurring run."""

    recurring_run_id: str
    change: Literal["made", "replaced", "unchanged"]
    version: Version


class Server:
    """One Kubeflow Pipelines API.

    Args:
        deadline: seconds for which one answer is waited for.

    Every method raises `ExSearchError` where the server cannot be reached or fails, and
    `InputError` where it refuses what it was given or who we are.
    """

    def __init__(self, config: RunConfig, deadline: float = DEADLINE) -> None:
        self.config = config
        self.pipeline: PipelineConfig = config.pipeline
        how: Any = api.Configuration(host=self.pipeline.host.rstrip("/"))
        token = os.environ.get(self.pipeline.token_env, "")
        if token:
            how.api_key["authorization"] = token
            how.api_key_prefix["authorization"] = "Bearer"
        how.retries = 2
        client = TimelyClient(how, deadline)
        # Generated code: its types tell less than they hinder.
        self._pipelines: Any = api.PipelineServiceApi(client)
        self._uploads: Any = api.PipelineUploadServiceApi(client)
        self._experiments: Any = api.ExperimentServiceApi(client)
        self.runs: Any = api.RunServiceApi(client)
        self._recurring: Any = api.RecurringRunServiceApi(client)

    def upload(self) -> Version:
        """The version that these settings compile to; uploaded where it is not there yet."""
        name = self.pipeline.name
        with _compiled(self.config) as path:
            version = f"{name}-{digest_bytes(Path(path).read_bytes())}"
            known = self._pipeline_id()
            if known is None:
                # Made empty: uploading it would make a first version that has the pipeline's name.
                bare = api.V2beta1Pipeline(name=name, display_name=name, **self.namespace())
                known = self._create(
                    lambda: self._pipelines.pipeline_service_create_pipeline(bare).pipeline_id,
                    self._pipeline_id,
                )
            there = self._version_id(known, version)
            if there is not None:
                return Version(known, there, version, new=False)
            made = self._create(
                lambda: (
                    self._uploads.upload_pipeline_version(
                        path, name=version, pipelineid=known
                    ).pipeline_version_id
                ),
                lambda: self._version_id(known, version),
            )
            return Version(known, made, version, new=True)

    def submit(self, name: str) -> str:
        """Start one run now; returns its id."""
        version = self.upload()
        body = api.V2beta1Run(
            display_name=name,
            experiment_id=self._experiment_id(),
            pipeline_version_reference=_reference(version),
            runtime_config=self._arguments(),
            service_account=self.config.cluster.service_account,
        )
        run = self.ask("start a run", lambda: self.runs.run_service_create_run(body))
        return str(run.run_id)

    def schedule(self) -> Scheduled:
        """Make the recurring run, or bring it to these settings.

        The API cannot change one, so a changed one is made anew, disabled; then the old one is
        removed, then the new one enabled: at no moment are two of them active.
        """
        version = self.upload()
        wanted = self._wanted(version)
        own = [r for r in self.recurring_runs() if r.display_name == self.pipeline.name]
        same = [r for r in own if _facts(r) == _facts(wanted)]
        kept = same[0] if same else self._make(wanted)
        others = [r for r in own if r.recurring_run_id != kept.recurring_run_id]
        for other in others:
            self.remove(other.recurring_run_id)
        self._switch(kept)
        change = "unchanged" if same and not others else "replaced" if own else "made"
        return Scheduled(kept.recurring_run_id, change, version)

    # --- what is there

    def _pipeline_id(self) -> str | None:
        try:
            found = self.ask(
                "look the pipeline up",
                lambda: self._pipelines.pipeline_service_get_pipeline_by_name(
                    self.pipeline.name, **self.namespace()
                ),
            )
        except NotThere:
            return None
        return str(found.pipeline_id)

    def _version_id(self, pipeline: str, name: str) -> str | None:
        versions = self._all(
            "list its versions",
            lambda **page: self._pipelines.pipeline_service_list_pipeline_versions(
                pipeline, **page
            ),
            "pipeline_versions",
        )
        return next((v.pipeline_version_id for v in versions if v.display_name == name), None)

    def _experiment_id(self) -> str:
        name = self.pipeline.experiment

        def look() -> str | None:
            listed = self._all(
                "list experiments",
                lambda **page: self._experiments.experiment_service_list_experiments(
                    filter=_named(name), **self.namespace(), **page
                ),
                "experiments",
            )
            return next((e.experiment_id for e in listed if e.display_name == name), None)

        return look() or self._create(
            lambda: (
                self._experiments.experiment_service_create_experiment(
                    api.V2beta1Experiment(display_name=name, **self.namespace())
                ).experiment_id
            ),
            look,
        )

    def recurring_runs(self) -> list[Any]:
        """Recurring runs whose name holds the pipeline's, as the server has them."""
        return self._all(
            "list schedules",
            lambda **page: self._recurring.recurring_run_service_list_recurring_runs(
                filter=_named(self.pipeline.name), **self.namespace(), **page
            ),
            "recurring_runs",
        )

    def _wanted(self, version: Version) -> Any:
        schedule = self.pipeline.schedule
        return api.V2beta1RecurringRun(
            display_name=self.pipeline.name,
            experiment_id=self._experiment_id(),
            pipeline_version_reference=_reference(version),
            runtime_config=self._arguments(),
            service_account=self.config.cluster.service_account,
            trigger=api.V2beta1Trigger(cron_schedule=api.V2beta1CronSchedule(cron=schedule.cron)),
            max_concurrency=str(schedule.max_concurrency),
            no_catchup=not schedule.catchup,
            mode=api.RecurringRunMode.DISABLE,
            **self.namespace(),
        )

    def _arguments(self) -> Any:
        return api.V2beta1RuntimeConfig(
            parameters={
                "config": parameter(self.config),
                "root": self.config.cluster.storage.root,
                "run": "",
            }
        )

    # --- changes

    def _make(self, wanted: Any) -> Any:
        return self.ask(
            "make the schedule",
            lambda: self._recurring.recurring_run_service_create_recurring_run(wanted),
        )

    def remove(self, recurring_run: str) -> None:
        """Remove a recurring run by its id, if it is still there."""
        with suppress(NotThere):  # someone else has removed it
            self.ask(
                "remove the old schedule",
                lambda: self._recurring.recurring_run_service_delete_recurring_run(recurring_run),
            )

    def _switch(self, recurring_run: Any) -> None:
        wanted = self.pipeline.schedule.enabled
        if (recurring_run.status == api.V2beta1RecurringRunStatus.ENABLED) == wanted:
            return
        name = recurring_run.recurring_run_id
        change = (
            self._recurring.recurring_run_service_enable_recurring_run
            if wanted
            else self._recurring.recurring_run_service_disable_recurring_run
        )
        self.ask("switch the schedule", lambda: change(name))

    # --- how

    def namespace(self) -> dict[str, str]:
        """The namespace as an argument of requests, where the server keeps profiles apart."""
        return {"namespace": self.config.cluster.namespace} if self.pipeline.multi_user else {}

    def _create(self, make: Callable[[], str], look: Callable[[], str | None]) -> str:
        """Make something; where another has made it meanwhile, use that."""
        try:
            return str(self.ask("create", make))
        except AlreadyThere:
            found = look()
            if found is None:
                raise
            return found

    def _all(self, doing: str, ask: Callable[..., Any], field: str) -> list[Any]:
        """Every page of a list."""
        found: list[Any] = []
        token = ""
        while True:
            page = self.ask(doing, lambda token=token: ask(page_token=token, page_size=PAGE))
            found += getattr(page, field) or []
            token = page.next_page_token or ""
            if not token:
                return found

    def ask(self, doing: str, request: Callable[[], Any]) -> Any:
        """Send a request; what goes wrong is said with what was being done.

        Raises:
            InputError: the server refuses.
            ExSearchError: it does not answer, or fails.
        """
        host = self.pipeline.host
        try:
            return request()
        except api.ApiException as error:
            raise told(doing, host, self.pipeline.token_env, error) from error
        except HTTPError as error:
            raise ExSearchError(
                f"cannot {doing}: {host} does not answer ({error.__class__.__name__}). Check "
                "pipeline.host, and that its port is forwarded: kubectl -n kubeflow port-forward "
                "svc/ml-pipeline 8888:8888"
            ) from error


def _reference(version: Version) -> Any:
    return api.V2beta1PipelineVersionReference(
        pipeline_id=version.pipeline_id, pipeline_version_id=version.version_id
    )


def _facts(recurring_run: Any) -> tuple[Any, ...]:
    """What makes two schedules the same, whether enabled or not."""
    r = recurring_run
    reference = r.pipeline_version_reference
    cron = r.trigger and r.trigger.cron_schedule and r.trigger.cron_schedule.cron
    parameters = dict((r.runtime_config and r.runtime_config.parameters) or {})
    return (
        reference and (reference.pipeline_id, reference.pipeline_version_id),
        cron,
        str(r.max_concurrency),
        bool(r.no_catchup),
        r.service_account,
        r.experiment_id,
        tuple(sorted(parameters.items())),
    )


def _named(name: str) -> str:
    """A v2beta1 filter for things of this display name."""
    equals = {"operation": "EQUALS", "key": "display_name", "stringValue": name}
    return json.dumps({"predicates": [equals]})


@contextmanager
def _compiled(config: RunConfig) -> Iterator[str]:
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder, f"{config.pipeline.name}.yaml"))
        compile_to(config, path)
        yield path
