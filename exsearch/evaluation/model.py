"""Measure a model: one greedy episode per question, judged."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from exsearch.agent.episode import Setting
from exsearch.agent.runner import Plan, Progress, run_questions
from exsearch.config import EvaluationConfig
from exsearch.evaluation.files import TRAJECTORIES, read_jsonl, save_evaluation
from exsearch.evaluation.judgement import judge
from exsearch.evaluation.summary import Summary, summarise
from exsearch.records import Question, Trajectory
from exsearch.storage import AppendLog, join


async def evaluate_model(
    questions: Sequence[Question],
    setting: Setting,
    plan: Plan,
    folder: str,
    name: str,
    config: EvaluationConfig,
    watch: Callable[[Progress], None] | None = None,
) -> Summary:
    """Run, judge and summarise; resumable, the folder as `files` describes it.

    Raises:
        InputError: the folder holds episodes of another model or other settings.
        PolicyError: the engine is gone; run again to go on.
    """
    started = time.monotonic()
    log = AppendLog(join(folder, TRAJECTORIES))
    await run_questions(questions, setting, plan, log, watch)
    by_id = {question.id: question for question in questions}
    judgements = [
        judge(by_id[trajectory.question_id], trajectory)
        for trajectory in read_jsonl(Trajectory, log.path)
    ]
    summary = summarise(
        judgements,
        name=name,
        bootstrap=config.bootstrap,
        confidence=config.confidence,
        seed=plan.seed,
        seconds=round(time.monotonic() - started, 3),
    )
    save_evaluation(folder, judgements, summary)
    return summary
