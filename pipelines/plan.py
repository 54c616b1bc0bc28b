"""What a pipeline run will take, worked out from rates before anything is spent.

Every rate is a number with its source: measured here, measured elsewhere, or derived. A plan
is as good as they are, so it prints them.
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import yaml
from pydantic import ValidationError
from rich.console import Group
from rich.table import Table
from rich.text import Text

from exsearch.config import Resources, RunConfig, Section
from exsearch.errors import InputError


class Rate(Section):
    """A number and where it is from."""

    value: float
    unit: str
    source: str
    """Who measured it, on what, or what it was derived from."""


class Rates(Section):
    """Speeds of one pod or GPU, and sizes, for one model on one kind of hardware."""

    passages_encoded: Rate
    """Passages a second and pod of the index step."""
    index_bytes: Rate
    """Bytes of index per passage."""
    tokens_written: Rate
    """Tokens a second that one rollout pod writes with its engine full."""
    tokens_trained: Rate
    """Tokens a second and GPU (or pod without one), forward and backward."""
    searches: Rate
    """Searches per episode."""
    written_per_search: Rate
    """Tokens the agent writes per search, the final answer shared out."""
    transcript: Rate
    """Tokens of a whole transcript, passages included."""
    examples_per_question: Rate
    """Weighted examples that a training question gives the M-step."""
    start: Rate
    """Seconds from a pod's creation to its first useful work: scheduling, image, model load."""
    parameters: Rate
    """Parameters of the model."""


class Workload(Section):
    """How much there is to do."""

    passages: int
    questions: int
    """Training questions of one round."""
    test: int
    warmup: int


class StepPlan(Section):
    """One kind of step of the pipeline, all its occurrences in a run together."""

    step: str
    times: int
    """Occurrences in a run."""
    pods: int
    """Pods of one occurrence."""
    hours: float
    """Wall time of one occurrence."""
    gpu_hours: float
    """GPU-hours of all occurrences."""
    storage_gb: float
    """Bytes left behind by all occurrences, in GB."""


class Plan(Section):
    """A whole run."""

    steps: tuple[StepPlan, ...]
    hours: float
    """Wall time along the longest path."""
    gpu_hours: float
    storage_gb: float
    workload: Workload
    rates: Rates


def load_rates(path: str = "") -> Rates:
    """Read a rates file; without one, the rates of a 7B model that come with the package.

    Raises:
        InputError: it cannot be read or lacks a rate.
    """
    try:
        text = (
            Path(path).read_text(encoding="utf-8")
            if path
            else files("exsearch.pipelines").joinpath("rates-7b.yaml").read_text(encoding="utf-8")
        )
        return Rates.model_validate(yaml.safe_load(text))
    except OSError as error:
        raise InputError(f"cannot read the rates {path}: {error.strerror}") from error
    except (yaml.YAMLError, ValidationError) as error:
        raise InputError(f"{path or 'rates-7b.yaml'} does not hold the rates: {error}") from error


def make_plan(config: RunConfig, rates: Rates, workload: Workload) -> Plan:
    """Work a run out, step by step. Pure."""
    steps = [
        _index(config, rates, workload),
        _train("warm-up", config, rates, workload.warmup, config.sft.epochs, 1),
        _episodes("rollout", config, rates, workload.questions * config.sampling.samples),
        _train(
            "align",
            config,
            rates,
            round(workload.questions * rates.examples_per_question.value),
            config.align.epochs,
            config.em.iterations,
        ),
        _evaluate(config, rates, workload),
    ]
    index, warm, rollout, align, evaluate = steps
    rounds = config.em.iterations * (rollout.hours + align.hours)
    return Plan(
        steps=tuple(steps),
        # Evaluations run beside the next round; only the last one is waited for.
        hours=index.hours + warm.hours + rounds + evaluate.hours,
        gpu_hours=sum(step.gpu_hours for step in steps),
        storage_gb=sum(step.storage_gb for step in steps),
        workload=workload,
        rates=rates,
    )


def _index(config: RunConfig, rates: Rates, workload: Workload) -> StepPlan:
    pods = config.pipeline.index_shards
    seconds = rates.start.value + workload.passages / rates.passages_encoded.value / pods
    size = workload.passages * rates.index_bytes.value
    return _step("index", 1, pods, seconds, config.cluster.index, size)


def _episodes(step: str, config: RunConfig, rates: Rates, episodes: int) -> StepPlan:
    pods = config.pipeline.rollout_shards
    return _step(
        step,
        config.em.iterations,
        pods,
        _sampling_seconds(rates, episodes / pods),
        config.cluster.rollout,
        # Ids, log-probabilities and passages as JSON: about 12 bytes a token.
        config.em.iterations * episodes * rates.transcript.value * 12,
    )


def _evaluate(config: RunConfig, rates: Rates, workload: Workload) -> StepPlan:
    stages = config.em.iterations + 1 + bool(config.data.warmup)
    seconds = _sampling_seconds(rates, workload.test)
    size = stages * workload.test * rates.transcript.value * 12
    return _step("evaluate", stages, 1, seconds, config.cluster.rollout, size)


def _sampling_seconds(rates: Rates, episodes: float) -> float:
    written = episodes * rates.searches.value * rates.written_per_search.value
    return rates.start.value + written / rates.tokens_written.value


def _train(
    step: str, config: RunConfig, rates: Rates, examples: int, epochs: float, times: int
) -> StepPlan:
    place = config.cluster.training
    pods = 1 if place.launcher == "local" else place.nodes
    asked = place.resources
    workers = pods * max(1, asked.gpus)
    tokens = examples * min(rates.transcript.value, config.model.max_tokens) * epochs
    seconds = rates.start.value + tokens / rates.tokens_trained.value / workers
    # The checkpoint that is kept; the state to resume from (16 bytes a parameter) is removed.
    size = times * rates.parameters.value * (4 if config.model.dtype == "float32" else 2)
    return _step(step, times, pods, seconds, asked, size)


def _step(
    name: str, times: int, pods: int, seconds: float, asked: Resources, size: float
) -> StepPlan:
    hours = seconds / 3600
    return StepPlan(
        step=name,
        times=times,
        pods=pods,
        hours=hours,
        gpu_hours=times * pods * asked.gpus * hours,
        storage_gb=size / 1e9,
    )


def plan_table(plan: Plan) -> Group:
    """The plan and the rates behind it, for a terminal."""
    work = plan.workload
    table = Table(
        title=f"{work.passages:,} passages, {work.questions:,} questions a round, "
        f"{work.test:,} test questions"
    )
    for column in ("step", "times", "pods", "hours each", "GPU-hours", "storage GB"):
        table.add_column(column, justify="left" if column == "step" else "right")
    for s in plan.steps:
        table.add_row(
            s.step, str(s.times), str(s.pods), f"{s.hours:.2f}", f"{s.gpu_hours:,.1f}",
            f"{s.storage_gb:,.1f}",
        )  # fmt: skip
    table.add_section()
    table.add_row(
        "in all", "", "", f"{plan.hours:.1f}", f"{plan.gpu_hours:,.1f}", f"{plan.storage_gb:,.1f}"
    )
    lines = [
        f"{name.replace('_', ' ')}: {rate.value:,g} {rate.unit} ({rate.source})"
        for name, rate in ((n, getattr(plan.rates, n)) for n in Rates.model_fields)
    ]
    return Group(table, Text("\n".join(["rates:", *lines])))
