"""What a run came to: stages, comparisons, the gate's decision; `summary.json`."""

from __future__ import annotations

from typing import Any, Protocol

from exsearch.config import RunConfig
from exsearch.em.layout import RunFolder, Stage
from exsearch.evaluation.bootstrap import Comparison, paired_gain
from exsearch.evaluation.files import load_evaluation
from exsearch.evaluation.gate import decide
from exsearch.evaluation.judgement import Judgement
from exsearch.evaluation.summary import Summary
from exsearch.storage import exists, read_json, write_json


class Checkpoint(Protocol):
    @property
    def stage(self) -> str: ...
    @property
    def path(self) -> str: ...


class Outcome:
    """Gathers the stages' summaries in the order they were measured."""

    def __init__(self, config: RunConfig) -> None:
        self._config = config
        self._stages: dict[str, Summary] = {}
        self._judgements: dict[str, tuple[Judgement, ...]] = {}

    def add(self, summary: Summary, stage: Stage) -> None:
        """Take in a stage's evaluation, with the ESS of its E-step where it had one."""
        if exists(stage.statistics):
            ess = float(read_json(stage.statistics)["ess"])
            summary = summary.model_copy(update={"ess": ess})
        self._stages[summary.name] = summary
        self._judgements[summary.name] = load_evaluation(stage.evaluation).judgements

    def write(
        self,
        run: RunFolder,
        base: str,
        start: Checkpoint,
        champion: Checkpoint,
        candidate: Checkpoint,
    ) -> dict[str, Any]:
        """Compare, decide, and write `summary.json`; returns its content."""
        decision = decide(
            self._judgements[candidate.stage],
            self._judgements[champion.stage],
            self._config.gate,
            names=(candidate.stage, champion.stage),
            bootstrap=self._config.evaluation.bootstrap,
            seed=self._config.seed,
        )
        rivals = dict.fromkeys([base, start.stage, champion.stage])
        comparisons = [
            self._compare(candidate.stage, rival, metric)
            for rival in rivals
            if rival != candidate.stage
            for metric in ("em", "f1")
        ]
        winner = candidate if decision.promoted else champion
        summary = {
            "stages": [s.model_dump(mode="json") for s in self._stages.values()],
            "comparisons": [c.model_dump(mode="json") for c in comparisons],
            "gate": decision.model_dump(mode="json"),
            "champion": winner.path,
        }
        write_json(run.path("summary.json"), summary)
        return summary

    def _compare(self, candidate: str, champion: str, metric: Any) -> Comparison:
        return paired_gain(
            self._judgements[candidate],
            self._judgements[champion],
            metric=metric,
            names=(candidate, champion),
            resamples=self._config.evaluation.bootstrap,
            confidence=self._config.evaluation.confidence,
            seed=self._config.seed,
        )
