"""The M-step: hand a stage's examples to the trainer."""

from __future__ import annotations

import random

from exsearch.config import RunConfig, TrainingConfig
from exsearch.em.layout import Stage
from exsearch.errors import InputError
from exsearch.records import Example, read_records
from exsearch.storage import open_text, write_atomic
from exsearch.training.job import TrainingJob, TrainingResult
from exsearch.training.launch import launch

NOTHING_REACHED = (
    "no question was reached, so there is nothing to learn. Sample more (sampling.samples), "
    "explore more (sampling.temperature), warm up more, or lower weighing.min_answer_probability"
)


def training_job(config: RunConfig, how: TrainingConfig, model: str, stage: Stage) -> TrainingJob:
    return TrainingJob(
        model=model,
        dtype=config.model.dtype,
        max_tokens=config.model.max_tokens,
        examples=stage.examples,
        output=stage.train,
        settings=how,
        seed=config.seed,
    )


def train(config: RunConfig, how: TrainingConfig, model: str, stage: Stage) -> TrainingResult:
    """Train on the stage's examples; a finished training is not repeated.

    Raises:
        InputError: there is no example to learn from.
        ExSearchError: the trainer failed; its last lines are in the message.
    """
    require_examples(stage)
    return launch(training_job(config, how, model, stage))


def require_examples(stage: Stage) -> None:
    """Refuse to train on nothing.

    Raises:
        InputError: the stage has no example.
    """
    with open_text(stage.examples) as lines:
        if not any(line.strip() for line in lines):
            raise InputError(f"{stage.examples} is empty: {NOTHING_REACHED}")


def mix_in_warmup(stage: Stage, warmup: Stage, share: float, seed: int) -> None:
    """Add warm-up examples to the stage's own, `share` times as many, a seeded choice."""
    with open_text(stage.examples) as lines:
        own = list(read_records(Example, lines, stage.examples))
    with open_text(warmup.examples) as lines:
        gold = list(read_records(Example, lines, warmup.examples))
    count = min(len(gold), round(share * len(own)))
    mixed = [*own, *random.Random(seed).sample(gold, count)]
    write_atomic(stage.examples, (f"{example.to_line()}\n" for example in mixed))
