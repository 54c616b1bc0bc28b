"""Which round runs, from which model: read from the lineage, so that any pod decides alike."""

from __future__ import annotations

from pathlib import Path

import pytest

from exsearch.config import load
from exsearch.em.layout import iteration_name
from exsearch.em.ledger import Quiet
from exsearch.em.steps import Model, Steps
from exsearch.storage import Lineage

pytestmark = pytest.mark.unit


def steps(run: Path, *more: str) -> Steps:
    return Steps(load(None, [f"run={run}", "model.path=base", *more]), Quiet())


def rounds(run: Path, reached: list[bool], dev: list[float]) -> None:
    """A run whose rounds so far reached something or not, with these dev scores."""
    lineage = Lineage(str(run))
    for number, (some, score) in enumerate(zip(reached, dev, strict=True), start=1):
        name = iteration_name(number)
        lineage.record(f"{name}/weigh", "f", 1.0, outputs={"reached": some})
        lineage.record(f"{name}/dev", "f", 1.0, outputs={"em": score})


@pytest.mark.parametrize(
    ("patience", "reached", "dev", "stops"),
    [
        (0, [], [], None),
        (0, [True, True], [0.5, 0.1], None),
        (0, [True, False], [0.5, 0.5], "round 2 ended it: no question was reached"),
        (1, [True, True], [0.1, 0.2], None),
        (1, [True, True], [0.2, 0.2], "no gain on the dev questions in 1 rounds up to round 2"),
        (2, [True, True], [0.2, 0.1], None),
        (2, [True, True, True], [0.2, 0.1, 0.2], "in 2 rounds up to round 3"),
        (2, [True, True, True], [0.2, 0.1, 0.3], None),
    ],
)
def test_rounds_stop_by_a_stated_rule(
    tmp_path: Path, patience: int, reached: list[bool], dev: list[float], stops: str | None
) -> None:
    rounds(tmp_path, reached, dev)
    reason = steps(tmp_path, f"em.patience={patience}").reason_to_stop(len(reached) + 1)
    assert (reason is None) if stops is None else stops in str(reason)


def test_a_round_that_had_to_stop_stays_stopped_for_those_after(tmp_path: Path) -> None:
    rounds(tmp_path, [True, True], [0.5, 0.4])
    assert steps(tmp_path, "em.patience=1").reason_to_stop(4) is not None


def test_models_are_found_by_their_stage(tmp_path: Path) -> None:
    run = steps(tmp_path, "data.warmup=[w.jsonl]", "gate.champion=old")
    warm = str(tmp_path / "warmup/train/checkpoint")
    assert run.model_of("base") == Model("base", "base")
    assert run.model_of("warmup") == Model("warmup", warm)
    assert run.model_of("champion") == Model("champion", "old")
    assert run.model_of("iter-01") is None, "it has not been trained"
    Lineage(str(tmp_path)).record("iter-01/train", "f", 1.0, outputs={"checkpoint": "c"})
    assert steps(tmp_path).model_of("iter-01") == Model("iter-01", "c")


def test_the_base_model_can_be_whom_to_beat(tmp_path: Path) -> None:
    run = steps(tmp_path, "data.warmup=[w.jsonl]", "gate.champion=base")
    assert run.champion == run.base
    assert run.start.stage == "warmup", "the rounds start from the warm-up all the same"


def test_a_run_from_a_champion_has_no_warm_up_of_its_own(tmp_path: Path) -> None:
    run = steps(tmp_path)
    assert run.start == run.champion == run.base
    assert run.model_of("warmup") is None


def test_a_round_samples_from_the_newest_model_before_it(tmp_path: Path) -> None:
    run = steps(tmp_path, "data.warmup=[w.jsonl]")
    assert run.before(1) == run.base, "nothing has been trained yet"
    for stage in ("warmup", "iter-01"):
        (tmp_path / stage / "train/checkpoint").mkdir(parents=True)
    assert run.before(1).stage == "warmup"
    assert run.before(2).stage == "iter-01"
    assert run.before(3).stage == "iter-01", "round 2 made no model"
