"""Judging episodes, summing them up, and keeping them on disk."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from exsearch.errors import BadLine, InputError
from exsearch.evaluation.files import load_evaluation, save_evaluation
from exsearch.evaluation.judgement import Judgement, judge, judge_prediction
from exsearch.evaluation.summary import summarise
from exsearch.records import (
    AnswerScore,
    Failure,
    Passage,
    Provenance,
    Question,
    Step,
    Trajectory,
)

pytestmark = pytest.mark.unit

QUESTION = Question(id="q", question="Where?", answers=("Paris", "Lutetia"), hops=2, pids=("7",))


def episode(**facts: object) -> Trajectory:
    base = {
        "question_id": "q",
        "sample": 0,
        "provenance": Provenance(model="m", index="i", prompt="p"),
        "steps": (Step(query="a", passages=(Passage(pid="7", title="T", text="x"),)),) * 3,
        "answer": "the Paris",
        "scores": (
            AnswerScore(alias="Paris", logprob=-2.0, tokens=1),
            AnswerScore(alias="Lutetia", logprob=-1.5, tokens=2),
        ),
    }
    return Trajectory.model_validate({**base, **facts})


def test_a_good_episode() -> None:
    judgement = judge(QUESTION, episode(forced=True))
    assert (judgement.em, judgement.f1, judgement.accuracy) == (1.0, 1.0, 1.0)
    assert (judgement.steps, judgement.hops, judgement.forced) == (3, 2, True)
    assert judgement.log_likelihood == -1.5
    assert judgement.retrieval["support_recall"] == 1.0
    assert judgement.failure is None


def test_a_failed_episode_is_wrong_even_with_the_right_answer_in_it() -> None:
    judgement = judge(QUESTION, episode(failure=Failure(reason="malformed"), scores=()))
    assert (judgement.em, judgement.f1, judgement.accuracy) == (0.0, 0.0, 0.0)
    assert (judgement.failure, judgement.log_likelihood) == ("malformed", None)
    assert judgement.retrieval["support_recall"] == 1.0  # what it searched, it searched


@pytest.mark.parametrize("answer", [None, "", "  "])
def test_a_blank_answer_is_a_failure(answer: str | None) -> None:
    assert judge(QUESTION, episode(answer=answer)).failure == "no_answer"
    assert judge_prediction(QUESTION, answer).failure == "missing"


def test_a_bare_prediction_has_no_steps_nor_retrieval() -> None:
    judgement = judge_prediction(QUESTION, "Lutetia!")
    assert judgement.em == 1.0
    assert judgement.steps is None
    assert judgement.retrieval == {}


def test_another_questions_trajectory_is_refused() -> None:
    with pytest.raises(ValueError, match="'other'"):
        judge(QUESTION, episode(question_id="other"))


def some() -> list[Judgement]:
    found = {"recall@20": 1.0, "mrr": 0.5, "support_recall": 1.0, "all_found": 1.0}
    lost = {"recall@20": 0.0, "mrr": 0.0, "support_recall": 0.5, "all_found": 0.0}
    return [
        Judgement(
            question_id="a", em=1, f1=1, accuracy=1, steps=3, hops=2, retrieval=found,
            log_likelihood=-1.0,
        ),
        Judgement(question_id="b", f1=0.5, steps=2, hops=2, retrieval=lost, log_likelihood=-3.0),
        Judgement(question_id="c", accuracy=1, steps=1, hops=3, forced=True),
        Judgement(question_id="d", steps=0, hops=2, failure="retriever"),
        Judgement(question_id="e", failure="missing"),
    ]  # fmt: skip


def test_summary_counts_everything() -> None:
    s = summarise(some(), name="iter-01", bootstrap=500, ess=2.5, seconds=9.0)
    assert (s.name, s.n, s.ess, s.seconds) == ("iter-01", 5, 2.5, 9.0)
    assert (s.em, s.f1, s.accuracy) == pytest.approx((0.2, 0.3, 0.4))
    assert s.em_ci[0] <= 0.2 <= s.em_ci[1]
    assert (s.log_marginal, s.scored) == (-2.0, 2)
    assert s.steps == pytest.approx(1.5)  # of the four with episodes
    assert (s.over_search, s.under_search, s.with_hops) == (pytest.approx(1 / 3),) * 2 + (3,)
    assert s.forced == 0.2
    assert s.failures == {"retriever": 1, "missing": 1}
    assert (s.recall_20, s.mrr, s.support_recall, s.all_found) == (0.5, 0.25, 0.75, 0.5)
    assert s.with_gold == 2


def test_summary_json_has_the_agreed_keys() -> None:
    document = summarise(some(), name="base", bootstrap=100).model_dump(mode="json")
    assert {
        "name", "n", "em", "em_ci", "f1", "f1_ci", "accuracy", "log_marginal", "ess", "steps",
        "failures", "recall@20", "seconds",
    } <= document.keys()  # fmt: skip
    assert "recall_20" not in document
    assert document["recall@20"] == 0.5
    assert len(document["em_ci"]) == 2
    json.dumps(document)


def test_unknown_figures_are_none_not_zero() -> None:
    s = summarise([Judgement(question_id="a", em=1)], name="x", bootstrap=10)
    figures = (s.steps, s.recall_20, s.recall_20_ci, s.log_marginal, s.over_search, s.all_found)
    assert figures == (None,) * 6


def test_no_question_no_summary() -> None:
    with pytest.raises(InputError, match="no question to summarise"):
        summarise([], name="x")


def test_summary_does_not_depend_on_order() -> None:
    there, back = (summarise(j, name="x", bootstrap=200) for j in (some(), some()[::-1]))
    assert there.model_dump(exclude={"failures"}) == back.model_dump(exclude={"failures"})
    assert there.failures == back.failures


def test_an_evaluation_survives_the_disk(tmp_path: Path) -> None:
    summary = summarise(some(), name="warmup", bootstrap=100)
    save_evaluation(tmp_path / "eval", some(), summary, [episode()])
    loaded = load_evaluation(tmp_path / "eval")
    assert loaded.judgements == tuple(some())
    assert loaded.summary == summary
    assert loaded.name == "warmup"
    assert list(loaded.trajectories()) == [episode()]


def test_a_folder_without_judgements_is_no_evaluation(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no evaluation.*judgements\.jsonl"):
        load_evaluation(tmp_path)


def test_a_broken_line_is_named(tmp_path: Path) -> None:
    (tmp_path / "judgements.jsonl").write_text('{"question_id":"a"}\n{"question_id":3}\n')
    with pytest.raises(BadLine, match=r"judgements\.jsonl, line 2, field 'question_id'"):
        load_evaluation(tmp_path)


def test_a_broken_summary_is_named(tmp_path: Path) -> None:
    (tmp_path / "judgements.jsonl").write_text('{"question_id":"a"}\n')
    (tmp_path / "summary.json").write_text('{"name": "x"}')
    with pytest.raises(InputError, match=r"summary\.json, field 'n'"):
        load_evaluation(tmp_path)
