"""What a run folder holds, read leniently: what is missing or broken becomes a note."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import yaml
from fsspec.core import url_to_fs
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from exsearch.errors import ExSearchError, InputError
from exsearch.evaluation.bootstrap import Comparison
from exsearch.evaluation.files import JUDGEMENTS, SUMMARY, TRAJECTORIES, read_jsonl
from exsearch.evaluation.summary import Summary
from exsearch.records import QuestionWeights
from exsearch.storage import exists, explained, join, open_text, read_json, read_text

T = TypeVar("T")
M = TypeVar("M", bound=BaseModel)


class Stage(Summary):
    """A stage of `summary.json`; keys of later versions are passed over."""

    model_config = ConfigDict(extra="ignore")


class GateFigures(BaseModel):
    """Of the gate's figures, the one that is shown large."""

    comparison: Comparison


class Gate(BaseModel):
    """The gate's word, with its figures where they were kept."""

    promoted: bool
    reason: str
    figures: GateFigures | None = None


class RunSummary(BaseModel):
    """`RUN/summary.json`."""

    stages: tuple[Stage, ...] = ()
    comparisons: tuple[Comparison, ...] = ()
    gate: Gate | None = None
    champion: str | None = None


class EStep(BaseModel):
    """`iter-NN/estep.json`: one E-step in figures."""

    questions: int | None = None
    samples: int | None = None
    log_marginal: float | None = None
    ess: float | None = None
    reachability: float | None = None
    """Share of questions that some sample answered right."""
    reached: float | None = None
    """Share of questions that give training signal."""
    sample_accuracy: float | None = None
    steps: float | None = None
    over_search: float | None = None
    under_search: float | None = None
    failures: dict[str, int] = Field(default_factory=dict)


@dataclass(frozen=True)
class Round:
    """One round's E-step."""

    name: str
    estep: EStep | None
    weights: tuple[QuestionWeights, ...]
    rollouts: tuple[str, ...]
    """Paths of the finished shards."""


@dataclass(frozen=True)
class TrainingCurve:
    """What the trainer logged, one value per logged optimizer step."""

    name: str
    steps: tuple[float, ...]
    losses: tuple[float, ...]
    """Nats per agent token where the trainer logs that, otherwise its own loss."""
    rates: tuple[float | None, ...]
    norms: tuple[float | None, ...]


@dataclass(frozen=True)
class Timing:
    """How long a step of the run took, in seconds."""

    step: str
    seconds: float
    finished: float


@dataclass
class Run:
    """Everything the page is made from."""

    path: str
    settings_text: str = ""
    settings: dict[str, Any] = field(default_factory=dict)
    summary: RunSummary = field(default_factory=RunSummary)
    stages: tuple[Stage, ...] = ()
    rounds: tuple[Round, ...] = ()
    training: tuple[TrainingCurve, ...] = ()
    timings: tuple[Timing, ...] = ()
    evaluated: tuple[str, ...] = ()
    """Names of the stages whose evaluation kept trajectories."""
    notes: list[str] = field(default_factory=list)

    def attempt(self, read: Callable[[], T], otherwise: T) -> T:
        """What `read` returns, or `otherwise` and a note that tells why."""
        try:
            return read()
        except ExSearchError as error:
            self.note(str(error))
            return otherwise

    def note(self, text: str) -> None:
        """Say what the page lacks, once."""
        if text not in self.notes:
            self.notes.append(text)


def read_run(path: str) -> Run:
    """Read a run folder, local or remote.

    Raises:
        InputError: there is no such folder.
    """
    if not exists(path):
        raise InputError(f"there is no run at {path}; give the folder that `exsearch em` wrote")
    run = Run(path=path)
    folders = [name for name in list_folder(path) if "." not in name]
    names = [name for name in folders if name.startswith("iter-")]
    known = [name for name in ("base", "warmup", "champion") if name in folders]
    places = [*known, *names]
    _read_settings(run)
    _read_summary(run, places)
    run.rounds = tuple(
        found for name in names if (found := run.attempt(lambda n=name: _read_round(path, n), None))
    )
    curves = [run.attempt(lambda n=name: _read_curve(path, n), None) for name in places]
    run.training = tuple(curve for curve in curves if curve and curve.steps)
    run.timings = run.attempt(lambda: _read_timings(path), ())
    run.evaluated = tuple(n for n in places if exists(join(path, n, "eval", TRAJECTORIES)))
    _note_absences(run)
    return run


def _read_settings(run: Run) -> None:
    place = join(run.path, "run.yaml")
    if not exists(place):
        run.note("run.yaml is not there: settings are left out.")
        return
    run.settings_text = run.attempt(lambda: read_text(place), "")
    try:
        loaded = yaml.safe_load(run.settings_text)
    except yaml.YAMLError as error:
        run.note(f"run.yaml is not YAML ({error.__class__.__name__}): shown as it is.")
        return
    run.settings = loaded if isinstance(loaded, dict) else {}


def _read_summary(run: Run, places: list[str]) -> None:
    """The run's summary, or what the stages' own summaries tell where it is missing."""
    place = join(run.path, SUMMARY)
    if exists(place):
        run.summary = run.attempt(lambda: _parse(RunSummary, place), RunSummary())
    else:
        run.note("summary.json is not there: no comparisons and no gate decision.")
    run.stages = run.summary.stages
    if not run.stages:
        files = [join(run.path, name, "eval", SUMMARY) for name in places]
        found = [run.attempt(lambda f=f: _parse(Stage, f), None) for f in files if exists(f)]
        run.stages = tuple(stage for stage in found if stage)


def _read_round(path: str, name: str) -> Round | None:
    """A round's E-step; None where it has not begun."""
    estep = join(path, name, "estep.json")
    weights = join(path, name, "weights.jsonl")
    shards = join(path, name, "rollouts")
    rollouts = tuple(join(shards, f) for f in list_folder(shards) if f.endswith(".jsonl"))
    if not (rollouts or exists(estep) or exists(weights)):
        return None
    return Round(
        name=name,
        estep=_parse(EStep, estep) if exists(estep) else None,
        weights=tuple(read_jsonl(QuestionWeights, weights)),
        rollouts=rollouts,
    )


def _read_curve(path: str, name: str) -> TrainingCurve | None:
    place = join(path, name, "train", "log.jsonl")
    if not exists(place):
        return None
    with open_text(place) as file:
        entries = [_entry(line, place, number) for number, line in enumerate(file, 1)]
    loss = "loss_per_token" if any("loss_per_token" in e for e in entries) else "loss"
    kept = [e for e in entries if _number(e, "step") is not None and _number(e, loss) is not None]
    return TrainingCurve(
        name=name,
        steps=tuple(float(e["step"]) for e in kept),
        losses=tuple(float(e[loss]) for e in kept),
        rates=tuple(_number(e, "learning_rate") for e in kept),
        norms=tuple(_number(e, "grad_norm") for e in kept),
    )


def _entry(line: str, place: str, number: int) -> dict[str, Any]:
    if not line.strip():
        return {}
    try:
        entry = json.loads(line)
    except json.JSONDecodeError as error:
        raise InputError(f"{place}, line {number}: not JSON ({error.msg})") from error
    return entry if isinstance(entry, dict) else {}


def _number(entry: dict[str, Any], key: str) -> float | None:
    """A finite number, or None: trainers log NaN where they overflowed."""
    value = entry.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def _read_timings(path: str) -> tuple[Timing, ...]:
    """Steps in the order in which they finished."""
    place = join(path, "lineage.json")
    if not exists(place):
        return ()
    entries = read_json(place)
    if not isinstance(entries, dict):
        raise InputError(f"{place} holds no mapping of steps")
    timings = [
        Timing(str(step), seconds, _number(entry, "finished") or 0.0)
        for step, entry in entries.items()
        if isinstance(entry, dict) and (seconds := _number(entry, "seconds")) is not None
    ]
    return tuple(sorted(timings, key=lambda timing: timing.finished))


def _note_absences(run: Run) -> None:
    if not run.stages:
        run.note("No stage was evaluated yet: no table and no curves over rounds.")
    if not run.rounds:
        run.note("No E-step has run yet: no weights, no sampled episodes.")
    for part in run.rounds:
        if part.estep is None:
            run.note(f"{part.name}/estep.json is not there: its E-step figures are left out.")
        if not part.weights:
            run.note(f"{part.name}/weights.jsonl is not there: its weights are left out.")
    if not run.training:
        run.note("No training log was found: no loss curves.")
    if not run.timings:
        run.note("lineage.json tells no step: no timings.")


def list_folder(path: str) -> list[str]:
    """Names in a folder, sorted; none where there is no such folder."""
    fs, key = url_to_fs(path)
    if not fs.isdir(key):
        return []
    with explained(path, "list"):
        names = [str(name).rstrip("/").rsplit("/", 1)[-1] for name in fs.ls(key, detail=False)]
    return sorted(names)


def evaluation_files(path: str, stage: str) -> tuple[str, str]:
    """Where a stage keeps its judgements and its trajectories."""
    folder = join(path, stage, "eval")
    return join(folder, JUDGEMENTS), join(folder, TRAJECTORIES)


def _parse(model: type[M], place: str) -> M:
    try:
        return model.model_validate_json(json.dumps(read_json(place)))
    except ValidationError as error:
        first = error.errors()[0]
        field_name = ".".join(map(str, first["loc"])) or "(file)"
        raise InputError(f"{place}, field '{field_name}': {first['msg']}") from error
