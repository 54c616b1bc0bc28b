"""The plan of a run: sums that a reader can redo, and rates that name their source."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from exsearch.config import load
from exsearch.errors import InputError
from exsearch.pipelines.plan import Rate, Rates, Workload, load_rates, make_plan, plan_table

pytestmark = pytest.mark.pipeline

EXAMPLE = Path(__file__).resolve().parents[2] / "examples/wikipedia-7b.yaml"


def rates(**values: float) -> Rates:
    numbers = {
        "passages_encoded": 100.0, "index_bytes": 1000.0, "tokens_written": 50.0,
        "tokens_trained": 200.0, "searches": 2.0, "written_per_search": 25.0,
        "transcript": 400.0, "examples_per_question": 2.0, "start": 0.0, "parameters": 1e6,
    }  # fmt: skip
    return Rates(**{n: Rate(value=v, unit="u", source="s") for n, v in (numbers | values).items()})


WORK = Workload(passages=360_000, questions=720, test=72, warmup=36)
SMALL = [
    "em.iterations=2",
    "sampling.samples=5",
    "align.epochs=1",
    "sft.epochs=1",
    "data.warmup=[w]",
    "pipeline.index_shards=2",
    "pipeline.rollout_shards=4",
    "cluster.index={gpus: 1}",
    "cluster.rollout={gpus: 2}",
    "cluster.training.launcher=pytorchjob",
    "cluster.training.nodes=2",
    "cluster.training.resources={gpus: 4}",
]


def test_every_step_is_work_over_rate() -> None:
    plan = make_plan(load(None, SMALL), rates(), WORK)
    steps = {s.step: s for s in plan.steps}
    assert steps["index"].hours == pytest.approx(360_000 / 100 / 2 / 3600)
    assert steps["index"].gpu_hours == pytest.approx(2 * 1 * 0.5)
    # 720 questions, 5 samples, 2 searches of 25 tokens, over 4 pods at 50 tokens a second
    assert steps["rollout"].hours == pytest.approx(720 * 5 * 50 / 50 / 4 / 3600)
    assert steps["rollout"].gpu_hours == pytest.approx(2 * 4 * 2 * steps["rollout"].hours)
    # 1,440 examples of 400 tokens, on 8 GPUs at 200 tokens a second
    assert steps["align"].hours == pytest.approx(1440 * 400 / 200 / 8 / 3600)
    assert steps["align"].times == 2
    assert steps["evaluate"].times == 4
    rounds = 2 * (steps["rollout"].hours + steps["align"].hours)
    ends = steps["index"].hours + steps["warm-up"].hours + steps["evaluate"].hours
    assert plan.hours == pytest.approx(rounds + ends)
    assert plan.gpu_hours == pytest.approx(sum(s.gpu_hours for s in plan.steps))


@given(st.integers(1, 8), st.integers(2, 8))
def test_more_pods_take_less_time_and_the_same_gpu_hours(pods: int, times: int) -> None:
    few = make_plan(load(None, [*SMALL, f"pipeline.rollout_shards={pods}"]), rates(), WORK)
    many = make_plan(load(None, [*SMALL, f"pipeline.rollout_shards={pods * times}"]), rates(), WORK)
    one, other = few.steps[2], many.steps[2]
    assert one.hours == pytest.approx(times * other.hours)
    assert one.gpu_hours == pytest.approx(other.gpu_hours)


def test_the_table_names_every_rate_and_its_source() -> None:
    console = Console(width=100, record=True)
    console.print(plan_table(make_plan(load(EXAMPLE), load_rates(), WORK)))
    told = " ".join(console.export_text().split())
    for name in Rates.model_fields:
        rate = getattr(load_rates(), name)
        assert name.replace("_", " ") in told
        assert rate.source in told


def test_a_rates_file_without_a_rate_is_refused(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text("start: {value: 1, unit: s, source: me}\n")
    with pytest.raises(InputError, match="does not hold the rates"):
        load_rates(str(tmp_path / "r.yaml"))
    with pytest.raises(InputError, match="cannot read the rates"):
        load_rates(str(tmp_path / "none.yaml"))
