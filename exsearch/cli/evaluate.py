"""`exsearch evaluate`: measure a model, or anyone's predictions."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated

import typer

from exsearch.cli.common import (
    ConfigOption,
    DryRunOption,
    JsonOption,
    SetOption,
    console,
    print_json,
    settings,
)
from exsearch.errors import InputError

if TYPE_CHECKING:
    from exsearch.config import RunConfig
    from exsearch.evaluation.summary import Summary
    from exsearch.records import Question


def main(
    config: ConfigOption = None,
    overrides: SetOption = None,
    questions: Annotated[
        list[str] | None,
        typer.Option("--questions", "-q", help="Question file; data.test. Repeatable."),
    ] = None,
    predictions: Annotated[
        str | None,
        typer.Option("--predictions", help='Score a file of {"id", "answer"} lines instead.'),
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", help="Model folder to measure; model.path.")
    ] = None,
    out: Annotated[
        str | None, typer.Option("--out", help="Folder for episodes, judgements and summary.")
    ] = None,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Measure a model by one greedy episode per question, or score given answers.

    Prints EM, F1 and accuracy as KILT defines them (fractions), with 95 % bootstrap
    intervals; for a model also retrieval, steps and failures. Failures count as wrong.

    Examples: `exsearch evaluate --config run.yaml --model runs/demo/iter-02/train/checkpoint
    --out evals/iter-02` · `exsearch evaluate --questions dev.json --predictions answers.jsonl`
    """
    from exsearch.em.questions import load_questions, some

    run = settings(config, overrides)
    files = questions or list(run.data.test)
    if not files:
        raise InputError("no questions: pass --questions FILE or set data.test")
    asked = some(
        load_questions(files, run.data, "questions", console.print), run.data.eval_limit, run.seed
    )
    if dry_run:
        console.print(f"would evaluate {len(asked)} questions", markup=False)
        return
    if predictions is not None:
        summary = _score(run, asked, predictions, out)
    else:
        folder = out or f"{run.run}/evaluate"
        summary = asyncio.run(_measure(run, model or run.model.path, asked, folder))
    facts = summary.model_dump(mode="json")
    if as_json:
        print_json(facts)
    for name, value in facts.items():
        if value not in (None, {}):
            console.print(f"{name}: {value}", markup=False)


def _score(run: RunConfig, asked: list[Question], path: str, out: str | None) -> Summary:
    from exsearch.evaluation.files import save_evaluation
    from exsearch.evaluation.predictions import score_predictions
    from exsearch.evaluation.summary import summarise

    judgements = score_predictions(asked, path)
    how = run.evaluation
    summary = summarise(
        judgements,
        name=path,
        bootstrap=how.bootstrap,
        confidence=how.confidence,
        seed=run.seed,
    )
    if out:
        save_evaluation(out, judgements, summary)
    return summary


async def _measure(run: RunConfig, model: str, asked: list[Question], folder: str) -> Summary:
    from exsearch.agent.runner import greedy
    from exsearch.cli.voice import ConsoleVoice
    from exsearch.em.session import session
    from exsearch.evaluation.model import evaluate_model

    with ConsoleVoice(console) as voice:
        voice.step("evaluate")
        async with session(run, model) as setting:
            return await evaluate_model(
                asked, setting, greedy(run), folder, model, run.evaluation, voice.progress
            )
