"""Retrieval metrics of an episode, against rankings worked out by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exsearch.evaluation.retrieval import fused_ranking, retrieval_metrics, score_ranking
from exsearch.records import Passage, Provenance, Question, Step, Trajectory

pytestmark = pytest.mark.unit


def episode(*steps: str) -> Trajectory:
    """One step per argument; its passages are the words, `pid` or `pid/Title`."""

    def passage(word: str) -> Passage:
        pid, _, title = word.partition("/")
        return Passage(pid=pid, title=title or f"T{pid}", text="")

    return Trajectory(
        question_id="q",
        sample=0,
        provenance=Provenance(model="", index="", prompt=""),
        steps=tuple(
            Step(query="s", passages=tuple(passage(w) for w in step.split())) for step in steps
        ),
    )


def question(*, pids: tuple[str, ...] = (), titles: tuple[str, ...] = ()) -> Question:
    return Question(id="q", question="?", answers=("a",), pids=pids, titles=titles)


def test_union_of_steps_at_best_rank() -> None:
    assert fused_ranking(episode("a b c", "c d a"), by_pid=True) == ["a", "c", "b", "d"]


def test_figures_by_hand() -> None:
    found = retrieval_metrics(question(pids=("b", "d", "zzz")), episode("a b c", "c d a"))
    assert found == pytest.approx(
        {
            "recall@1": 0.0,
            "recall@5": 2 / 3,
            "recall@20": 2 / 3,
            "mrr": 1 / 3,
            "support_recall": 2 / 3,
            "all_found": 0.0,
        }
    )


def test_everything_found_at_once() -> None:
    found = retrieval_metrics(question(pids=("a",)), episode("a b"))
    assert set(found.values()) == {1.0}


def test_cutoffs_count_positions_of_the_union() -> None:
    long = " ".join(f"p{i}" for i in range(30))
    found = retrieval_metrics(question(pids=("p4", "p5", "p25", "p29")), episode(long))
    assert (found["recall@5"], found["recall@20"]) == (0.25, 0.5)
    assert (found["support_recall"], found["all_found"]) == (1.0, 1.0)
    assert found["mrr"] == pytest.approx(0.2)


def test_titles_where_no_pid_is_known() -> None:
    steps = episode("1/Rome 2/Rome 3/Ostia")
    found = retrieval_metrics(question(titles=("Ostia",)), steps)
    assert found["mrr"] == 0.5  # both passages on Rome are one document
    assert retrieval_metrics(question(pids=("3",), titles=("Ostia",)), steps)["mrr"] == 1 / 3


def test_titles_compare_as_composed_unicode() -> None:
    found = retrieval_metrics(question(titles=("Café  Müller",)), episode("1/x"))
    assert found["all_found"] == 0.0
    trajectory = episode("1/x").model_copy(
        update={
            "steps": (
                Step(query="", passages=(Passage(pid="1", title="Cafe\u0301 Müller", text=""),)),
            )
        }
    )
    assert retrieval_metrics(question(titles=("Café  Müller",)), trajectory)["all_found"] == 1.0


def test_no_gold_gives_no_figures_and_no_search_gives_zeros() -> None:
    assert retrieval_metrics(question(), episode("a")) == {}
    assert set(retrieval_metrics(question(pids=("a",)), episode()).values()) == {0.0}
    assert set(retrieval_metrics(question(pids=("a",)), episode("")).values()) == {0.0}


@given(
    st.sets(st.text(max_size=3), min_size=1, max_size=5),
    st.lists(st.text(max_size=3), unique=True, max_size=30),
)
def test_equals_the_definitions_whatever_the_ids(gold: set[str], ranking: list[str]) -> None:
    found = score_ranking(gold, ranking)
    for k in (1, 5, 20):
        assert found[f"recall@{k}"] == pytest.approx(len(gold & set(ranking[:k])) / len(gold))
    hits = [rank for rank, key in enumerate(ranking, 1) if key in gold]
    assert found["mrr"] == pytest.approx(1 / hits[0] if hits else 0.0)
    assert found["support_recall"] == pytest.approx(len(hits) / len(gold))
    assert found["all_found"] == float(len(hits) == len(gold))
