"""Submitting and scheduling, against a server that speaks Kubeflow Pipelines' v2beta1 API."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
import yaml
from kfp_server import Kubeflow, Refused, kubeflow

from exsearch.config import RunConfig, load
from exsearch.errors import ExSearchError, InputError
from exsearch.pipelines.server import Server

pytestmark = pytest.mark.pipeline


@pytest.fixture
def kfp() -> Iterator[Kubeflow]:
    with kubeflow() as state:
        yield state


def settings(kfp: Kubeflow, *more: str) -> RunConfig:
    return load(None, [f"pipeline.host={kfp.url}", "em.iterations=1", *more])


def test_a_run_starts_from_the_version_these_settings_compile_to(kfp: Kubeflow) -> None:
    run_id = Server(settings(kfp, "seed=7")).submit("by hand")
    run = kfp.runs[run_id]
    assert run["display_name"] == "by hand"
    assert run["service_account"] == "exsearch-pipeline"
    parameters = run["runtime_config"]["parameters"]
    assert yaml.safe_load(parameters["config"])["seed"] == 7
    assert parameters["run"] == ""
    version = kfp.versions[run["pipeline_version_reference"]["pipeline_version_id"]]
    assert version["display_name"].startswith("exsearch-em-")
    assert kfp.experiments[run["experiment_id"]]["display_name"] == "exsearch"


def test_the_same_pipeline_is_uploaded_once_and_a_changed_one_is_a_new_version(
    kfp: Kubeflow,
) -> None:
    first = Server(settings(kfp)).upload()
    again = Server(settings(kfp)).upload()
    assert first.new
    assert not again.new
    assert again.version_id == first.version_id
    names = {Server(settings(kfp, f"em.iterations={n}")).upload().name for n in (1, 2, 3, 4)}
    assert len(names) == 4
    assert len(kfp.pipelines) == 1
    assert len(kfp.versions) == 4, "found again on a later page of the list"


def test_there_is_one_schedule_whatever_is_asked(kfp: Kubeflow) -> None:
    made = Server(settings(kfp)).schedule()
    same = Server(settings(kfp)).schedule()
    assert (made.change, same.change) == ("made", "unchanged")
    assert same.recurring_run_id == made.recurring_run_id
    later = Server(settings(kfp, "pipeline.schedule.cron='0 0 4 * * *'")).schedule()
    other = Server(settings(kfp, "em.iterations=2")).schedule()
    assert (later.change, other.change) == ("replaced", "replaced")
    assert list(kfp.recurring) == [other.recurring_run_id]
    only = kfp.recurring[other.recurring_run_id]
    assert only["status"] == "ENABLED"
    assert only["trigger"]["cron_schedule"]["cron"] == "0 0 3 * * 6"
    assert (only["max_concurrency"], only["no_catchup"]) == ("1", True)
    assert kfp.most_enabled == 1, "at one moment two schedules would have started runs"


def test_a_schedule_is_switched_off_and_on_without_being_made_anew(kfp: Kubeflow) -> None:
    made = Server(settings(kfp)).schedule()
    off = Server(settings(kfp, "pipeline.schedule.enabled=false")).schedule()
    assert kfp.recurring[off.recurring_run_id]["status"] == "DISABLED"
    on = Server(settings(kfp)).schedule()
    assert kfp.recurring[on.recurring_run_id]["status"] == "ENABLED"
    assert made.recurring_run_id == off.recurring_run_id == on.recurring_run_id
    assert len(kfp.recurring) == len(kfp.versions) == 1


def test_a_schedule_that_was_left_half_made_is_mended(kfp: Kubeflow) -> None:
    """The process died between making the new schedule and removing the old one."""
    Server(settings(kfp)).schedule()

    def die(method: str, path: str) -> None:
        if method == "DELETE":
            raise Refused(500, "gone")

    kfp.before = die
    with pytest.raises(ExSearchError, match="remove the old schedule"):
        Server(settings(kfp, "seed=2")).schedule()
    assert [r["status"] for r in kfp.recurring.values()] == ["ENABLED", "DISABLED"]
    kfp.before = lambda method, path: None
    done = Server(settings(kfp, "seed=2")).schedule()
    assert list(kfp.recurring) == [done.recurring_run_id]
    assert kfp.recurring[done.recurring_run_id]["status"] == "ENABLED"


def test_what_another_made_meanwhile_is_used(kfp: Kubeflow) -> None:
    def race(method: str, path: str) -> None:
        if method == "POST" and path.endswith("/experiments"):
            kfp.experiments["x"] = {"display_name": "exsearch", "experiment_id": "x"}

    kfp.before = race
    run = kfp.runs[Server(settings(kfp)).submit("one")]
    assert run["experiment_id"] == "x"
    assert len(kfp.experiments) == 1


def test_a_token_is_sent_and_a_missing_one_is_named(
    kfp: Kubeflow, monkeypatch: pytest.MonkeyPatch
) -> None:
    kfp.token = "s3cret"
    with pytest.raises(InputError, match=r"does not let us \(401.*KFP_TOKEN") as refused:
        Server(settings(kfp)).submit("one")
    assert "s3cret" not in str(refused.value)
    monkeypatch.setenv("KFP_TOKEN", "s3cret")
    assert Server(settings(kfp)).submit("one") in kfp.runs


def test_profiles_are_told_apart_where_the_server_does(kfp: Kubeflow) -> None:
    Server(settings(kfp, "pipeline.multi_user=true", "cluster.namespace=team-a")).schedule()
    (experiment,) = kfp.experiments.values()
    (recurring,) = kfp.recurring.values()
    assert experiment["namespace"] == recurring["namespace"] == "team-a"


@pytest.mark.parametrize(
    ("status", "kind"), [(400, InputError), (403, InputError), (500, ExSearchError)]
)
def test_a_refusal_says_what_the_server_said(
    kfp: Kubeflow, status: int, kind: type[ExSearchError]
) -> None:
    def refuse(method: str, path: str) -> None:
        raise Refused(status, "not on a Friday")

    kfp.before = refuse
    with pytest.raises(kind, match="not on a Friday"):
        Server(settings(kfp)).schedule()


def test_a_server_that_is_down_is_named() -> None:
    with kubeflow() as gone:
        config = settings(gone)
    with pytest.raises(ExSearchError, match=r"127\.0\.0\.1:\d+ does not answer.*port-forward"):
        Server(config).submit("one")


def test_a_server_that_never_answers_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        config = load(None, [f"pipeline.host=http://127.0.0.1:{silent.getsockname()[1]}"])
        with pytest.raises(ExSearchError, match="does not answer"):
            Server(config, deadline=0.2).submit("one")
