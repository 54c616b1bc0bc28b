"""An overlay's settings, its objects and the code say the same; its init containers work."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from manifest_checks import (
    MANIFESTS,
    OVERLAYS,
    ROOT,
    agent_pod,
    build,
    named,
    of_kind,
    retriever_paths,
    run_of,
)

pytestmark = pytest.mark.manifests

EVERY = pytest.mark.parametrize("overlay", OVERLAYS)


@EVERY
def test_run_configuration_names_what_the_overlay_makes(overlay: str) -> None:
    objects, run = build(overlay), run_of(overlay)
    cluster, storage = run.cluster, run.cluster.storage
    held = named(objects, "ConfigMap", "exsearch-run")["data"]["run.yaml"]
    assert held == (MANIFESTS / "overlays" / overlay / "run.yaml").read_text(encoding="utf-8")
    assert cluster.namespace == named(objects, "Namespace", "exsearch")["metadata"]["name"]
    named(objects, "ServiceAccount", cluster.service_account)

    claims = {c["metadata"]["name"]: c["spec"] for c in of_kind(objects, "PersistentVolumeClaim")}
    assert set(claims) == ({storage.claim} if storage.claim else set())
    if storage.claim:
        assert claims[storage.claim]["resources"]["requests"]["storage"] == storage.size
        assert claims[storage.claim].get("storageClassName", "") == storage.storage_class
    queues = {queue["metadata"]["name"] for queue in of_kind(objects, "LocalQueue")}
    assert queues == ({cluster.queue} if cluster.queue else set())

    [container] = named(objects, "Deployment", "exsearch-retriever")["spec"]["template"]["spec"][
        "containers"
    ]
    assert container["image"] == cluster.images.retriever
    [rule] = named(objects, "Role", "exsearch-deployer")["rules"]
    if cluster.deploy.name:
        assert rule["resourceNames"] == [cluster.deploy.name]


@EVERY
def test_retriever_finds_the_runs_index_where_it_is_mounted(overlay: str) -> None:
    run = run_of(overlay)
    spec = named(build(overlay), "Deployment", "exsearch-retriever")["spec"]["template"]["spec"]
    [container], [waiter] = spec["containers"], spec["initContainers"]
    if run.cluster.storage.claim:
        mounted = {m["mountPath"] for m in container["volumeMounts"]}
        assert run.cluster.storage.mount in mounted
        assert f"{run.retrieval.index}/exsearch.json" in waiter["args"][0]
    else:
        environment = {v["name"]: v["value"] for v in waiter["env"]}
        assert environment["EXSEARCH_ROOT"] == run.cluster.storage.root
        assert run.retrieval.index == f"{run.cluster.storage.root}/index"
        assert run.retrieval.checkpoint == f"{run.cluster.storage.root}/models/colbertv2.0"
        secrets = [source["secretRef"]["name"] for source in waiter["envFrom"]]
        assert secrets == [run.cluster.storage.secret]


def test_kueue_overlay_differs_from_gpu_by_its_queue_only() -> None:
    queued = run_of("gpu-kueue").model_dump()
    assert queued["cluster"].pop("queue") == "exsearch"
    plain = run_of("gpu").model_dump()
    assert plain["cluster"].pop("queue") == ""
    assert queued == plain


def commands(overlay: str) -> Iterator[list[str]]:
    """Arguments of every container that runs `exsearch`."""
    objects = build(overlay)
    deployment = named(objects, "Deployment", "exsearch-retriever")
    job = named(objects, "CronJob", "exsearch-rollback")["spec"]["jobTemplate"]
    for spec in (
        deployment["spec"]["template"]["spec"],
        job["spec"]["template"]["spec"],
        agent_pod(objects)["spec"],
    ):
        yield from (container["args"] for container in spec["containers"])


@EVERY
def test_containers_run_commands_that_exist(overlay: str) -> None:
    from typer.testing import CliRunner

    from exsearch.cli.app import app

    seen = set()
    for args in commands(overlay):
        words = [word for word in args if not word.startswith("--")]
        flags = [word.partition("=")[0] for word in args if word.startswith("--")]
        helped = CliRunner().invoke(app, [*words, "--help"], env={"COLUMNS": "200"})
        assert helped.exit_code == 0, helped.output
        for flag in flags:
            assert flag in helped.output, (words, flag)
        seen.add(" ".join(words))
    assert seen == {"retriever", "serve", "agent rollback"}


def test_probed_and_scraped_paths_are_served() -> None:
    objects = build("gpu")
    [container] = named(objects, "Deployment", "exsearch-retriever")["spec"]["template"]["spec"][
        "containers"
    ]
    probes = ("startupProbe", "readinessProbe", "livenessProbe")
    asked = {container[probe]["httpGet"]["path"] for probe in probes}
    for monitor in of_kind(objects, "ServiceMonitor"):
        asked |= {end["path"] for end in monitor["spec"]["endpoints"]}
    assert asked <= retriever_paths()


def script_of(overlay: str, folders: dict[str, Path]) -> list[str]:
    """The init container's command, with folders of this machine in place of its mounts."""
    [waiter] = named(build(overlay), "Deployment", "exsearch-retriever")["spec"]["template"][
        "spec"
    ]["initContainers"]
    [text] = waiter["args"]
    assert waiter["command"] == ["python", "-c"]
    for mount, folder in folders.items():
        assert mount in text
        text = text.replace(mount, str(folder))
    return [sys.executable, "-c", text]


def test_fetch_brings_a_whole_index(tmp_path: Path) -> None:
    bucket, local = tmp_path / "bucket", tmp_path / "local"
    for name in ("index/exsearch.json", "index/parts/0.npy", "models/colbertv2.0/vocab.txt"):
        (bucket / name).parent.mkdir(parents=True, exist_ok=True)
        (bucket / name).write_text(name)
    local.mkdir()
    command = script_of("object-store", {"/mnt/index": local})
    environment = os.environ | {"EXSEARCH_ROOT": f"file://{bucket}"}
    subprocess.run(command, env=environment, check=True, timeout=120, cwd=ROOT)
    fetched = {str(p.relative_to(local)): p.read_text() for p in local.rglob("*") if p.is_file()}
    assert set(fetched) == set(fetched.values())
    assert len(fetched) == 3


def test_wait_ends_with_the_index_and_at_sigterm(tmp_path: Path) -> None:
    command = script_of("gpu", {"/mnt/exsearch": tmp_path})
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as waiting:
        assert waiting.stdout is not None
        assert "no " in waiting.stdout.readline()
        waiting.terminate()
        assert waiting.wait(timeout=60) == 143
    (tmp_path / "index").mkdir()
    (tmp_path / "index/exsearch.json").touch()
    subprocess.run(command, check=True, timeout=60)
