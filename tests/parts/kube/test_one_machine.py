"""One SearchAgent on one machine: applied, trained, promoted, asked, deleted."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
import yaml
from kube_api.cluster import crd_folder
from manifest_checks import ROOT
from one_machine.machine import machine, resource
from one_machine.story import tell_story
from test_loop import TRAINING
from tiny_model import AGENT

from exsearch.retrieval.encoder import demo_folder

pytestmark = pytest.mark.kube


@pytest.mark.skipif(crd_folder() is None, reason="no CRDs: set EXSEARCH_CRDS to their folder")
def test_from_kubectl_apply_to_an_answer(
    tmp_path: Path, tiny_models: tuple[str, str], world_files: Path
) -> None:
    """The tiny world, model and steps; `python -m one_machine` does the same with the demo's."""
    volume = tmp_path / "volume"
    volume.mkdir()
    (volume / "data").symlink_to(world_files)
    (volume / "models").mkdir()
    (volume / "models/base").symlink_to(tiny_models[1])
    example = yaml.safe_load((ROOT / "examples/searchagent-laptop.yaml").read_text())
    questions = [
        json.loads(line)["question"]
        for line in (world_files / "warmup.jsonl").read_text().splitlines()
    ]
    with machine(tmp_path) as found:
        agent = resource(
            example,
            found,
            model={"path": str(volume / "models/base"), "dtype": "float32"},
            data={"train_limit": 8, "eval_limit": 8, "warmup_limit": 8},
            retrieval={"checkpoint": str(demo_folder())},
            agent=AGENT,
            policy={"kind": "transformers", "concurrency": 6},
            weighing={"min_answer_probability": 0.0},
            sft={**TRAINING, "learning_rate": 1e-6},
            align={**TRAINING, "learning_rate": 1e-6},
            em={"iterations": 1},
            # A gain of any kind promotes: this model has learned all it will.
            gate={"margin": -1.0, "max_recall_loss": 1.0},
        )
        told = tell_story(found, agent, questions, print, patience=480)
        record = json.loads((volume / "champion.json").read_text())["current"]
        assert told.champion == record["model"]
        assert told.answered["model"] == record["digest"], "the promoted model is what answered"
        assert told.answered["steps"]
        assert {"Promoted", "Serving"} <= set(told.events)
        end = time.monotonic() + 30
        while found.kubeflow.recurring and time.monotonic() < end:
            time.sleep(0.2)
        assert not found.kubeflow.recurring, "the schedule goes with the agent"
