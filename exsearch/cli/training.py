"""What `sft` and `align` print."""

from __future__ import annotations

from exsearch.cli.common import console, print_json
from exsearch.records import Example, read_records
from exsearch.storage import open_text
from exsearch.training.job import TrainingJob, TrainingResult


def tell_plan(job: TrainingJob, as_json: bool) -> None:
    """What a training run would read."""
    with open_text(job.examples) as lines:
        lengths = [
            len(example.transcript.token_ids)
            for example in read_records(Example, lines, job.examples)
        ]
    plan = {
        "model": job.model,
        "examples": len(lengths),
        "tokens": sum(lengths),
        "longest": max(lengths, default=0),
        "over_max_tokens": sum(length > job.max_tokens for length in lengths),
        "epochs": job.settings.epochs,
        "output": job.output,
    }
    if as_json:
        print_json(plan)
    for name, value in plan.items():
        console.print(f"{name}: {value}", markup=False)


def tell_result(result: TrainingResult, as_json: bool) -> None:
    """What a training run gave."""
    if as_json:
        print_json(result.model_dump(mode="json"))
    counts = result.examples
    console.print(
        f"{counts.used} examples ({counts.dropped} dropped, {counts.cut} cut, "
        f"{counts.zero_weight} without weight, {counts.empty} without agent tokens), "
        f"{result.steps} steps, loss {result.loss_first:.3f} → {result.loss_last:.3f}, "
        f"{result.seconds:.0f} s",
        markup=False,
    )
    console.print(f"checkpoint: {result.checkpoint}", markup=False)
