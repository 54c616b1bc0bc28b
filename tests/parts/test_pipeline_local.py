"""The compiled components, run as processes by kfp.local on the tiny world."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from cli_process import Done, run, settings
from test_loop import TRAINING

pytestmark = pytest.mark.pipeline


def prepared(folder: Path, world: Path, model: str, url: str, **more: object) -> Path:
    sections: dict[str, object] = {
        "weighing": {"min_answer_probability": 0.0},
        "sft": TRAINING,
        "align": TRAINING,
        "em": {"iterations": 1},
        "pipeline": {"rollout_shards": 2, "retries": 0},
        # A gain of any kind promotes: random weights do not learn to answer.
        "gate": {"margin": -1.0, "max_recall_loss": 1.0},
    }
    return settings(folder, world, model, url, **(sections | more))


def command(config: Path, root: Path, *more: str) -> Done:
    return run(
        *("pipeline", "run", "--local", "-c", str(config), "--root", str(root), "--json"), *more
    )


@pytest.fixture(scope="module")
def whole(
    tmp_path_factory: pytest.TempPathFactory, tiny_models, world_files: Path, search_url: str
) -> tuple[Path, dict[str, Any]]:
    """A pipeline run to its end: its root, and what it printed."""
    folder = tmp_path_factory.mktemp("pipeline")
    config = prepared(folder, world_files, tiny_models[1], search_url)
    done = command(config, folder / "root")
    assert done.code == 0, done.err[-3000:] + done.out[-3000:]
    return folder, json.loads(done.out)


def test_the_pipeline_reaches_a_decision_and_promotes(whole: tuple[Path, dict[str, Any]]) -> None:
    folder, summary = whole
    assert [s["name"] for s in summary["stages"]] == ["base", "warmup", "iter-01"]
    assert summary["gate"]["promoted"]
    assert summary["gate"]["figures"]["comparison"]["champion"] == "base", "it is in service"
    record = json.loads((folder / "root/champion.json").read_text())
    assert record["current"]["model"] == summary["champion"]
    assert record["current"]["run"] == str(folder / "root/runs/local")
    outcome = json.loads((folder / "root/runs/local/outcome.json").read_text())
    assert "SUCC" in outcome["state"]
    page = (folder / "root/runs/local/report.html").read_text()
    assert "iter-01" in page
    assert "Left out of this page" not in page, "every part of the report had its file"


def test_every_shard_was_sampled_and_all_were_weighed_together(
    whole: tuple[Path, dict[str, Any]],
) -> None:
    run_folder = whole[0] / "root/runs/local"
    shards = sorted((run_folder / "iter-01/rollouts").glob("*.jsonl"))
    assert [s.name for s in shards] == [f"shard-00{i}-of-002.jsonl" for i in (0, 1)]
    counts = [len(s.read_text().splitlines()) for s in shards]
    assert counts == [12, 12], "8 questions, 3 samples each"
    assert len((run_folder / "iter-01/weights.jsonl").read_text().splitlines()) == 8
    lineage = json.loads((run_folder / "lineage.json").read_text())
    assert {"iter-01/rollout-0-of-2", "iter-01/rollout-1-of-2", "iter-01/train"} <= set(lineage)


def test_a_rerun_does_nothing_twice(whole: tuple[Path, dict[str, Any]]) -> None:
    folder, summary = whole
    watched = ["iter-01/rollouts/shard-000-of-002.jsonl", "iter-01/train/result.json"]
    paths = [folder / "root/runs/local" / name for name in watched]
    before = [p.stat().st_mtime_ns for p in paths]
    done = command(folder / "settings.yaml", folder / "root")
    assert done.code == 0, done.err[-3000:]
    assert [p.stat().st_mtime_ns for p in paths] == before
    again = json.loads(done.out)
    assert again["stages"] == summary["stages"]


def test_the_next_run_starts_from_the_champion(whole: tuple[Path, dict[str, Any]]) -> None:
    folder, summary = whole
    done = command(folder / "settings.yaml", folder / "root", "--name", "next")
    assert done.code == 0, done.err[-3000:]
    after = json.loads(done.out)
    assert [s["name"] for s in after["stages"]] == ["base", "iter-01"], "no second warm-up"
    run_folder = folder / "root/runs/next"
    noted = (run_folder / "run.yaml").read_text()
    assert summary["champion"] in noted
    record = json.loads((folder / "root/champion.json").read_text())
    assert [p["run"] for p in [record["current"], *record["history"]]] == [
        str(run_folder),
        str(folder / "root/runs/local"),
    ]


def test_a_failing_component_fails_the_run_in_its_own_words(
    tmp_path: Path, tiny_models, world_files: Path, search_url: str
) -> None:
    config = prepared(tmp_path, world_files, tiny_models[1], search_url, sampling={"samples": 2})
    broken = tmp_path / "broken.jsonl"
    broken.write_text('{"question": "who?"}\n')
    done = command(
        config, tmp_path / "root", "-s", f"data.train=[{broken}]", "-s", "model.path=absent"
    )
    assert done.code == 1
    told = done.err[done.err.rindex("error:") :].replace("\n", " ")
    assert "prerequisites" in told
    assert "broken.jsonl" in told, "both problems are told at once"
    assert "'absent'" in told
    outcome = json.loads((tmp_path / "root/runs/local/outcome.json").read_text())
    assert "FAIL" in outcome["state"]
    assert "broken.jsonl" in outcome["message"]
    assert "'absent'" in outcome["message"]
