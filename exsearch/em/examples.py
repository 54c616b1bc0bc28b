"""The M-step's examples: weighted trajectories with the gold answer as their final turn."""

from __future__ import annotations

from collections.abc import Iterator

from exsearch.agent.chat import ChatFormat
from exsearch.config import WeighingConfig
from exsearch.records import Example, Question, QuestionWeights, Trajectory, Transcript


def gold_alias(question: Question, trajectory: Trajectory) -> str:
    """The alias the model finds likeliest after this trajectory; the first where unscored."""
    if not trajectory.scores:
        return question.answers[0]
    return max(trajectory.scores, key=lambda score: score.logprob).alias


def question_examples(
    question: Question,
    weights: QuestionWeights,
    trajectories: dict[int, Trajectory],
    chat: ChatFormat,
    config: WeighingConfig,
) -> Iterator[Example]:
    """Σ_k w_k [log p(z_k|x) + log p(y|x,z_k)], one example per weighted sample.

    The transcript is the sampled one, id for id; the gold answer replaces the
    agent's own. A learned selection is a conversation of its own and carries its
    sample's weight. An unreached question yields nothing.
    """
    if not weights.reached:
        return
    for sample in weights.samples:
        if sample.weight <= config.min_weight:
            continue
        trajectory = trajectories[sample.sample]
        if trajectory.transcript is None:
            continue
        answer = chat.turn(gold_alias(question, trajectory))
        transcript = Transcript(segments=(*trajectory.transcript.segments, answer))
        yield Example(id=trajectory.key, transcript=transcript, weight=sample.weight)
        for number, step in enumerate(trajectory.steps, 1):
            if step.selection is not None:
                yield Example(
                    id=f"{trajectory.key}/selection-{number}",
                    transcript=step.selection,
                    weight=sample.weight,
                )
