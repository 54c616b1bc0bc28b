"""The M-step's examples: the sampled ids, the gold answer, the posterior's weight."""

from __future__ import annotations

import pytest
from scripted import question

from exsearch.agent.chat import ChatFormat
from exsearch.config import WeighingConfig
from exsearch.em.examples import gold_alias, question_examples
from exsearch.records import (
    AnswerScore,
    Example,
    Failure,
    Provenance,
    QuestionWeights,
    Step,
    Trajectory,
    Transcript,
    WeightedTrajectory,
)

pytestmark = pytest.mark.unit

ASKED = question("q1", "Ada", "Ada Lovelace")


def sampled(
    chat: ChatFormat, sample: int, *, selection: bool = False, **more: object
) -> Trajectory:
    segments = (
        chat.opening("Search.", "Who?"),
        chat.turn(f"<QUERY> thing {sample}"),
        chat.reply("<SEARCH> found", turn_ended=True),
        chat.turn("<FINAL>"),
        chat.reply("Answer.", turn_ended=True),
    )
    picked = Transcript(segments=(chat.opening("Select.", "[1] a"), chat.turn("[1]")))
    return Trajectory.model_validate(
        {
            "question_id": "q1",
            "sample": sample,
            "provenance": Provenance(model="m", index="i", prompt="p"),
            "steps": (Step(query="thing", selection=picked if selection else None),),
            "answer": "something wrong",
            "transcript": Transcript(segments=segments),
            "answer_ids": (1, 2, 3),
            "scores": (
                AnswerScore(alias="Ada", logprob=-2.0, tokens=1),
                AnswerScore(alias="Ada Lovelace", logprob=-1.0 - sample, tokens=2),
            ),
            **more,
        }
    )


def weights(*shares: float, reached: bool = True) -> QuestionWeights:
    samples = tuple(WeightedTrajectory(sample=n, weight=w) for n, w in enumerate(shares))
    return QuestionWeights(
        question_id="q1", samples=samples, log_marginal=-1.0, ess=1.0, reached=reached
    )


def made(
    chat: ChatFormat, trajectories: list[Trajectory], weighed: QuestionWeights, **config: object
) -> list[Example]:
    by_sample = {t.sample: t for t in trajectories}
    how = WeighingConfig.model_validate(config)
    return list(question_examples(ASKED, weighed, by_sample, chat, how))


def test_the_gold_answer_is_the_final_turn_and_the_rest_is_as_sampled(chatml: ChatFormat) -> None:
    trajectory = sampled(chatml, 0)
    [example] = made(chatml, [trajectory], weights(1.0))
    assert trajectory.transcript is not None
    assert example.transcript.segments[:-1] == trajectory.transcript.segments
    assert example.transcript.segments[-1] == chatml.turn("Ada Lovelace")
    assert (example.id, example.weight) == ("q1#0", 1.0)
    learned = [chatml.decode(s.ids) for s in example.transcript.segments if s.agent]
    assert learned == ["<QUERY> thing 0", "<FINAL>", "Ada Lovelace"]


def test_the_likeliest_alias_is_taught(chatml: ChatFormat) -> None:
    assert gold_alias(ASKED, sampled(chatml, 0)) == "Ada Lovelace"
    assert gold_alias(ASKED, sampled(chatml, 3)) == "Ada"
    assert gold_alias(ASKED, sampled(chatml, 0, scores=())) == "Ada"


def test_weights_go_with_their_own_samples(chatml: ChatFormat) -> None:
    found = made(chatml, [sampled(chatml, n) for n in (2, 0, 1)], weights(0.1, 0.7, 0.2))
    assert [(e.id, e.weight) for e in found] == [("q1#0", 0.1), ("q1#1", 0.7), ("q1#2", 0.2)]
    for n, example in enumerate(found):
        assert f"thing {n}" in chatml.tokenizer.decode(example.transcript.token_ids)


def test_an_unreached_question_teaches_nothing(chatml: ChatFormat) -> None:
    assert made(chatml, [sampled(chatml, 0)], weights(1.0, reached=False)) == []


def test_samples_without_weight_or_below_the_floor_are_left_out(chatml: ChatFormat) -> None:
    trajectories = [sampled(chatml, n) for n in range(3)]
    assert [e.id for e in made(chatml, trajectories, weights(0.0, 0.9, 0.1))] == ["q1#1", "q1#2"]
    strict = made(chatml, trajectories, weights(0.0, 0.9, 0.1), min_weight=0.1)
    assert [e.id for e in strict] == ["q1#1"]


def test_a_failed_sample_without_a_transcript_is_left_out(chatml: ChatFormat) -> None:
    failed = sampled(chatml, 0, transcript=None, failure=Failure(reason="retriever"))
    assert made(chatml, [failed, sampled(chatml, 1)], weights(0.5, 0.5))[0].id == "q1#1"


def test_selections_are_taught_with_their_samples_weight(chatml: ChatFormat) -> None:
    found = made(chatml, [sampled(chatml, 0, selection=True)], weights(0.6))
    assert [(e.id, e.weight) for e in found] == [("q1#0", 0.6), ("q1#0/selection-1", 0.6)]
    assert [chatml.decode(s.ids) for s in found[1].transcript.segments if s.agent] == ["[1]"]
