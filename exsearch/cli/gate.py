"""`exsearch gate`: does the candidate replace the champion?"""

from __future__ import annotations

from typing import Annotated

import typer

from exsearch.cli import common


def main(
    candidate: Annotated[
        str, typer.Option("--candidate", help="Evaluation folder of the new model.")
    ],
    champion: Annotated[
        str, typer.Option("--champion", help="Evaluation folder of the model in place.")
    ],
    questions: Annotated[
        str | None,
        typer.Option("--questions", help="Question file, needed for predictions files."),
    ] = None,
    out: Annotated[str, typer.Option("--out", help="Where the decision is written.")] = "gate.json",
    fail_on_reject: Annotated[
        bool, typer.Option("--fail-on-reject", help="Exit with 1 where the champion stays.")
    ] = False,
    config: common.ConfigOption = None,
    overrides: common.SetOption = None,
    as_json: common.JsonOption = False,
) -> None:
    """Promote the candidate on a certain gain without a loss of retrieval, and write why.

    The whole interval of the paired gain must lie above `gate.margin`, and recall@20 may
    have fallen by `gate.max_recall_loss` at most. Either outcome is a success (exit 0)
    unless `--fail-on-reject` is given.

    Example: `exsearch gate --candidate runs/demo/iter-02 --champion runs/demo/warmup`
    """
    from exsearch.data.questions import read_questions
    from exsearch.evaluation.compare import load_side, told_apart
    from exsearch.evaluation.gate import decide
    from exsearch.storage import write_json

    run = common.settings(config, overrides)
    asked = None if questions is None else list(read_questions(questions, run.data.format))
    sides = load_side(candidate, asked), load_side(champion, asked)
    decision = decide(
        sides[0].judgements,
        sides[1].judgements,
        run.gate,
        names=told_apart(*sides, (candidate, champion)),
        bootstrap=run.evaluation.bootstrap,
        seed=run.seed,
    )
    document = decision.model_dump(mode="json")
    write_json(out, document)
    if as_json:
        common.print_json(document)
    verdict = "promoted" if decision.promoted else "the champion stays"
    common.console.print(f"{verdict}: {decision.reason} ({out})", markup=False)
    if fail_on_reject and not decision.promoted:
        raise typer.Exit(1)
