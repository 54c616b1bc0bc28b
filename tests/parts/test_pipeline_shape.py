"""What the pipeline compiles to: its order, its pods, the committed copy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from exsearch.config import RunConfig, load, parse
from exsearch.pipelines.em import compile_to

pytestmark = pytest.mark.pipeline

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples/wikipedia-7b.yaml"


def compiled(tmp_path: Path, config: RunConfig) -> tuple[dict[str, Any], dict[str, Any]]:
    """The pipeline's specification, and what it asks of Kubernetes, by component."""
    path = tmp_path / "em.yaml"
    compile_to(config, str(path))
    spec, platform = yaml.safe_load_all(path.read_text())
    return spec, platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]


def tasks(spec: dict[str, Any]) -> dict[str, Any]:
    """The tasks after the prerequisites."""
    return spec["components"]["comp-steps"]["dag"]["tasks"]


def called(spec: dict[str, Any], title: str) -> str:
    """The key of the task that people see under this title."""
    return next(k for k, t in tasks(spec).items() if t["taskInfo"]["name"] == title)


def before(spec: dict[str, Any], title: str) -> set[str]:
    """Titles of all that must have ended before a task starts."""
    found: set[str] = set()
    todo = [called(spec, title)]
    while todo:
        for key in tasks(spec)[todo.pop()].get("dependentTasks", []):
            name = tasks(spec)[key]["taskInfo"]["name"]
            if name not in found:
                found.add(name)
                todo.append(key)
    return found


def test_the_committed_copy_is_what_the_example_compiles_to(tmp_path: Path) -> None:
    compile_to(load(EXAMPLE), str(tmp_path / "em.yaml"))
    committed = (ROOT / "pipelines/exsearch-em.yaml").read_bytes()
    assert (tmp_path / "em.yaml").read_bytes() == committed, (
        "compile it again: exsearch pipeline compile -c examples/wikipedia-7b.yaml "
        "-o pipelines/exsearch-em.yaml"
    )


def test_the_steps_come_in_the_methods_order(tmp_path: Path) -> None:
    spec, _ = compiled(tmp_path, load(None, ["em.iterations=2"]))
    outer = spec["components"]["comp-exit-handler-1"]["dag"]["tasks"]
    assert outer["steps"]["dependentTasks"] == ["prerequisites"]
    assert {"encode", "index", "warm-up data"} <= before(spec, "warm-up")
    assert {"warm-up", "iter-01 rollout"} <= before(spec, "iter-01 weigh")
    assert "iter-01 align" in before(spec, "iter-02 rollout")
    assert "evaluate iter-01" not in before(spec, "iter-02 rollout"), "they run side by side"
    measured = {f"evaluate {stage}" for stage in ("base", "warmup", "iter-01", "iter-02")}
    assert measured <= before(spec, "gate")
    assert "gate" in before(spec, "promoted")


def test_early_stopping_waits_for_the_round_before_to_be_measured(tmp_path: Path) -> None:
    spec, _ = compiled(tmp_path, load(None, ["em.iterations=2", "em.patience=1"]))
    assert "evaluate iter-01" in before(spec, "iter-02 rollout")


def test_the_report_is_written_whatever_happened(tmp_path: Path) -> None:
    spec, _ = compiled(tmp_path, load())
    last = spec["root"]["dag"]["tasks"]["report"]
    assert last["triggerPolicy"]["strategy"] == "ALL_UPSTREAM_TASKS_COMPLETED"


def test_only_what_its_inputs_determine_is_reused(tmp_path: Path) -> None:
    spec, _ = compiled(tmp_path, load())
    reused = set()
    for component in spec["components"].values():
        for name, task in component.get("dag", {}).get("tasks", {}).items():
            if task.get("cachingOptions", {}).get("enableCache"):
                reused.add(name)
    loops = {name for name in reused if name.startswith(("for-loop", "condition"))}
    assert reused - loops == {"encode", "merge"}


def test_the_settings_travel_as_one_line_and_come_back_the_same(tmp_path: Path) -> None:
    config = load(None, ["agent.instruction='Say: \"yes\"'", "data.train=[a.jsonl]"])
    spec, _ = compiled(tmp_path, config)
    default = spec["root"]["inputDefinitions"]["parameters"]["config"]["defaultValue"]
    assert "\n" not in default
    assert parse(default) == config


def test_pods_get_what_the_settings_say(tmp_path: Path) -> None:
    config = load(
        EXAMPLE,
        [
            "cluster.tolerations=[{key: gpu, operator: Exists, effect: NoSchedule}]",
            "cluster.gpu_selector={nvidia.com/gpu.product: H100}",
            "cluster.images.pull_secrets=[registry]",
            "cluster.storage.secret=bucket",
            "cluster.labels={team: search}",
        ],
    )
    spec, pods = compiled(tmp_path, config)
    executors = spec["deploymentSpec"]["executors"]
    images = {name: e["container"]["image"] for name, e in executors.items()}
    assert images["exec-encode"] == "exsearch/retriever:0.1.0"
    assert images["exec-rollout"] == images["exec-evaluate"] == "exsearch/rollout:0.1.0"
    assert images["exec-train"] == images["exec-gate"] == "exsearch/tools:0.1.0"
    rollout = executors["exec-rollout"]["container"]["resources"]
    assert rollout["accelerator"]["resourceType"] == "nvidia.com/gpu"
    assert rollout["accelerator"]["resourceCount"] == "1"
    assert rollout["resourceMemoryLimit"] == rollout["resourceMemoryRequest"] == "128Gi"
    assert "accelerator" not in executors["exec-gate"]["container"]["resources"]
    assert pods["exec-rollout"]["nodeSelector"]["labels"] == {"nvidia.com/gpu.product": "H100"}
    assert "nodeSelector" not in pods["exec-gate"], "no GPU, no GPU node"
    for name, pod in pods.items():
        assert pod["pvcMount"][0]["mountPath"] == "/mnt/exsearch", name
        assert pod["securityContext"]["runAsNonRoot"], name
        assert pod["tolerations"][0]["key"] == "gpu", name
        assert pod["imagePullSecret"][0]["secretName"] == "registry", name
        assert pod["secretAsEnv"][0]["secretName"] == "bucket", name
        assert pod["podMetadata"]["labels"]["team"] == "search", name
        assert int(pod["activeDeadlineSeconds"]) == config.pipeline.step_timeout, name
    assert set(pods) == set(executors)


def test_a_step_that_trains_by_itself_gets_what_training_takes(tmp_path: Path) -> None:
    training = ["cluster.training.resources={cpu: '3', memory: 5Gi, gpus: 2}"]
    spec, _ = compiled(tmp_path, load(None, [*training, "cluster.training.launcher=local"]))
    own = spec["deploymentSpec"]["executors"]["exec-train"]["container"]
    assert own["image"] == "exsearch/trainer:0.1.0"
    assert own["resources"]["resourceMemoryLimit"] == "5Gi"
    assert own["resources"]["accelerator"]["resourceCount"] == "2"
    spec, _ = compiled(tmp_path, load(None, [*training, "cluster.training.launcher=trainjob"]))
    launcher = spec["deploymentSpec"]["executors"]["exec-train"]["container"]
    assert launcher["image"] == "exsearch/tools:0.1.0"
    assert "accelerator" not in launcher["resources"]


def test_no_image_floats(tmp_path: Path) -> None:
    spec, _ = compiled(tmp_path, load())
    for name, executor in spec["deploymentSpec"]["executors"].items():
        image = executor["container"]["image"]
        tag = image.rpartition(":")[2]
        assert ":" in image, name
        assert tag != "latest", name
