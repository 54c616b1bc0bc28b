"""The whole loop on a tiny model and a tiny world: once, again, killed, refused."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
from cli_process import Done, run, settings, start, stop_when

from exsearch.config import load
from exsearch.em.weighing import read_weights

pytestmark = pytest.mark.loop

TRAINING = {
    "learning_rate": 1e-3,
    "epochs": 1,
    "batch_size": 4,
    "micro_tokens": 2048,
    "gradient_checkpointing": False,
    "report_to": [],
}


def prepared(folder: Path, world: Path, model: str, url: str) -> Path:
    return settings(
        folder,
        world,
        model,
        url,
        weighing={"min_answer_probability": 0.0},
        sft=TRAINING,
        align=TRAINING,
        em={"iterations": 2},
    )


def command(config: Path, *more: str) -> Done:
    return run("em", "-c", str(config), "--json", *more)


@pytest.fixture(scope="module")
def whole(
    tmp_path_factory: pytest.TempPathFactory, tiny_models, world_files: Path, search_url: str
) -> tuple[Path, dict[str, Any]]:
    """A run of two rounds without a break: its folder, and what it printed."""
    folder = tmp_path_factory.mktemp("loop")
    config = prepared(folder, world_files, tiny_models[1], search_url)
    done = command(config)
    assert done.code == 0, done.err
    return folder, json.loads(done.out)


def timeless(summary: dict[str, Any]) -> dict[str, Any]:
    """A summary without what depends on the clock or the folder."""
    stages = [{**stage, "seconds": 0} for stage in summary["stages"]]
    where = Path(summary["champion"])
    name = where.name if where.name != "checkpoint" else where.parents[1].name
    return {**summary, "stages": stages, "champion": name}


def test_a_run_goes_from_questions_to_a_summary(whole: tuple[Path, dict[str, Any]]) -> None:
    folder, summary = whole
    run_folder = folder / "run"
    assert [s["name"] for s in summary["stages"]] == ["base", "warmup", "iter-01", "iter-02"]
    assert all(stage["n"] == 8 for stage in summary["stages"])
    assert [s["ess"] is not None for s in summary["stages"]] == [False, False, True, True]
    rivals = {(c["candidate"], c["champion"]) for c in summary["comparisons"]}
    assert rivals == {("iter-02", "base"), ("iter-02", "warmup")}
    assert summary["gate"]["reason"]
    assert json.loads((run_folder / "summary.json").read_text()) == summary
    assert (Path(summary["champion"]) / "model.safetensors").exists()
    page = (run_folder / "report.html").read_text()
    assert page.lstrip().lower().startswith("<!doctype html>")
    assert "iter-02" in page


def test_every_step_leaves_its_files_and_its_lineage(whole: tuple[Path, dict[str, Any]]) -> None:
    run_folder = whole[0] / "run"
    lineage = json.loads((run_folder / "lineage.json").read_text())
    rounds = [f"iter-0{n}/{step}" for n in (1, 2) for step in ("rollout", "weigh", "train", "eval")]
    steps = ["base/eval", "warmup/data", "warmup/train", "warmup/eval", *rounds]
    assert list(lineage) == steps
    assert (
        lineage["iter-02/rollout"]["inputs"]["model"]
        != lineage["iter-01/rollout"]["inputs"]["model"]
    )
    assert load(run_folder / "run.yaml").run == str(run_folder)
    weighed = read_weights(str(run_folder / "iter-01/weights.jsonl"))
    assert len(weighed) == 8
    assert all(len(w.samples) == 3 for w in weighed)
    assert not list(run_folder.rglob("*.partial"))


def test_a_second_run_does_nothing(whole: tuple[Path, dict[str, Any]]) -> None:
    folder, summary = whole
    before = {p: p.stat().st_mtime_ns for p in (folder / "run").rglob("*") if p.is_file()}
    done = command(folder / "settings.yaml")
    assert done.code == 0, done.err
    assert json.loads(done.out) == summary
    assert done.err.count("done before") == 12
    rewritten = {"run.yaml", "questions.jsonl", "summary.json", "report.html"}
    changed = {p.name for p, when in before.items() if p.stat().st_mtime_ns != when}
    assert changed <= rewritten


def test_a_run_killed_in_the_middle_ends_as_if_nothing_had_been(
    whole: tuple[Path, dict[str, Any]],
    tmp_path: Path,
    tiny_models,
    world_files: Path,
    search_url: str,
) -> None:
    """Killed in a rollout, and again with its trainer; each time the whole process group."""
    config = prepared(tmp_path, world_files, tiny_models[1], search_url)
    run_folder = tmp_path / "run"
    marks = [
        run_folder / "iter-01/rollouts/shard-000-of-001.jsonl.partial",
        run_folder / "iter-01/train/job.json",
    ]
    for mark in marks:
        child = start("em", "-c", str(config), "--json", start_new_session=True)
        done = stop_when(child, lambda mark=mark: mark.exists() and mark.stat().st_size > 0)
        assert done.code == -signal.SIGKILL, done.err
    done = command(config)
    assert done.code == 0, done.err
    assert timeless(json.loads(done.out)) == timeless(whole[1])
    shard = "run/iter-02/rollouts/shard-000-of-001.jsonl"
    assert (tmp_path / shard).read_bytes() == (whole[0] / shard).read_bytes()


def test_a_round_that_reaches_no_question_ends_the_rounds(
    whole: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    shutil.copytree(whole[0] / "run", tmp_path / "run")
    for entry in (tmp_path / "run/lineage").glob("*.json"):
        entry.write_text(entry.read_text().replace(str(whole[0]), str(tmp_path)))
        if entry.name.startswith("iter-") and entry.name != "iter-01.rollout.json":
            entry.unlink()
    for number in (1, 2):
        shutil.rmtree(tmp_path / f"run/iter-0{number}/train")
    impossible = ["-s", f"run={tmp_path}/run", "-s", "weighing.min_answer_probability=1.0"]
    done = command(whole[0] / "settings.yaml", *impossible)
    assert done.code == 0, done.err
    assert "no question was reached" in done.err.replace("\n", " ")
    summary = json.loads(done.out)
    assert [s["name"] for s in summary["stages"]] == ["base", "warmup"]
    assert not summary["gate"]["promoted"]
    assert Path(summary["champion"]) == tmp_path / "run/warmup/train/checkpoint"


@pytest.mark.parametrize(
    ("change", "step"),
    [
        ("retrieval.url=http://127.0.0.1:9", "base/eval"),
        ("agent.top_n=1", "base/eval"),
        ("sampling.samples=2", "iter-01/rollout"),
        ("weighing.temperature=2.0", "iter-01/weigh"),
        ("align.epochs=2", "iter-01/train"),
    ],
)
def test_other_settings_are_refused_by_name(
    whole: tuple[Path, dict[str, Any]], change: str, step: str
) -> None:
    accepted = (whole[0] / "run/run.yaml").read_bytes()
    done = command(whole[0] / "settings.yaml", "-s", change)
    assert done.code == 2, done.err
    assert f"step '{step}'" in done.err
    assert (whole[0] / "run/run.yaml").read_bytes() == accepted, "refused settings were noted"
    assert "use another run folder" in done.err.replace("\n", " ")
    assert "Traceback" not in done.err


def test_the_champion_of_a_run_answers(whole: tuple[Path, dict[str, Any]], tiny_world) -> None:
    asked = tiny_world.questions["train"][1].question
    done = run("ask", "--run", str(whole[0] / "run"), "--json", asked)
    assert done.code in (0, 1), done.err
    assert json.loads(done.out)["question"] == asked


def test_no_process_is_left_behind(whole: tuple[Path, dict[str, Any]]) -> None:
    listed = subprocess.run(["ps", "-eo", "pid,args"], capture_output=True, text=True, check=True)
    mine = [line for line in listed.stdout.splitlines() if str(whole[0]) in line]
    assert not [line for line in mine if str(os.getpid()) != line.split()[0]]
