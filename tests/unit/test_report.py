"""The report: what it reads, what it draws, what it leaves out, and that text stays text."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from synthetic_run import HOSTILE, make_hostile, make_run

from exsearch.errors import InputError
from exsearch.evaluation.files import write_jsonl
from exsearch.evaluation.report import viewer, write_report
from exsearch.evaluation.report.charts import (
    Curve,
    Line,
    Point,
    bars,
    curve_chart,
    histogram,
    line_chart,
)
from exsearch.evaluation.report.sections import duration
from exsearch.evaluation.report.sources import read_run
from exsearch.evaluation.report.svg import ticks as round_ticks
from exsearch.evaluation.report.viewer import build_viewer, choose
from exsearch.records import Passage, Step, Trajectory

pytestmark = pytest.mark.unit


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("runs") / "demo", questions=12, samples=3)


def page_of(folder: Path) -> str:
    return Path(write_report(str(folder))).read_text(encoding="utf-8")


def embedded(page: str) -> dict:
    found = re.search(r'id="episodes-data">(.*?)</script>', page, re.DOTALL)
    assert found is not None
    return json.loads(found[1])


def test_the_page_has_every_part(run_folder: Path) -> None:
    page = page_of(run_folder)
    for anchor in ("stages", "rounds", "training", "time", "reading", "settings"):
        assert f'id="{anchor}"' in page
    for name in ("base", "warmup", "iter-01", "iter-02"):
        assert f"<td>{name}</td>" in page
    assert page.count("<svg ") == 16
    assert ("Promoted" in page) == read_run(str(run_folder)).summary.gate.promoted
    assert "Left out of this page" not in page


def test_the_page_asks_nothing_of_the_network(run_folder: Path) -> None:
    page = page_of(run_folder)
    assert "default-src 'none'" in page
    assert not re.search(r"""(src|href)\s*=\s*["']?(https?:|//)|@import|url\(""", page)


def test_the_viewer_has_samples_with_weights_and_stages_side_by_side(run_folder: Path) -> None:
    data = embedded(page_of(run_folder))
    assert [g["key"] for g in data["groups"]] == ["iter-01", "iter-02", "test"]
    first = data["groups"][0]["questions"][0]
    assert [c["label"] for c in first["cards"]] == ["Sample 1", "Sample 2", "Sample 3"]
    assert all("weight" in c for c in first["cards"])
    test = data["groups"][2]["questions"][0]
    assert [c["label"] for c in test["cards"]] == ["base", "warmup", "iter-01", "iter-02"]
    kept = [p for c in first["cards"] for s in c["steps"] for p in s["passages"] if p[1]]
    assert kept
    assert all(data["passages"][row][1] for row, _, _ in kept)


def test_an_empty_run_makes_a_page_of_notes(tmp_path: Path) -> None:
    (tmp_path / "fresh").mkdir()
    page = page_of(tmp_path / "fresh")
    assert "No stage was evaluated yet" in page
    assert "No E-step has run yet" in page
    assert "<svg" not in page


def test_no_run_no_page(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no run at"):
        write_report(str(tmp_path / "nowhere"))


@pytest.mark.parametrize(
    "missing",
    [
        "run.yaml", "lineage.json", "summary.json", "questions.jsonl", "iter-01/estep.json",
        "iter-01/weights.jsonl", "iter-01/rollouts", "warmup/train/log.jsonl",
        "base/eval/judgements.jsonl", "base/eval/trajectories.jsonl", "iter-02",
    ],
)  # fmt: skip
def test_any_part_may_be_missing(tmp_path: Path, missing: str) -> None:
    folder = make_run(tmp_path / "run", questions=4, samples=2)
    gone = folder / missing
    gone.rename(tmp_path / "gone")
    assert "Read the episodes" in page_of(folder)


@pytest.mark.parametrize(
    "broken",
    ["run.yaml", "lineage.json", "summary.json", "questions.jsonl", "iter-01/estep.json",
     "iter-01/weights.jsonl", "iter-01/rollouts/shard-000-of-002.jsonl", "warmup/train/log.jsonl",
     "base/eval/judgements.jsonl", "base/eval/trajectories.jsonl"],
)  # fmt: skip
def test_a_broken_part_becomes_a_note(tmp_path: Path, broken: str) -> None:
    folder = make_run(tmp_path / "run", questions=4, samples=2)
    (folder / broken).write_text('{"question_id": [}\n', encoding="utf-8")
    page = page_of(folder)
    assert "Left out of this page" in page
    assert broken in page


def test_without_the_runs_summary_the_stages_own_are_shown(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", questions=4, samples=2)
    (folder / "summary.json").unlink()
    assert [s.name for s in read_run(str(folder)).stages] == [
        "base",
        "warmup",
        "iter-01",
        "iter-02",
    ]


def test_hostile_text_stays_text(tmp_path: Path) -> None:
    page = page_of(make_hostile(tmp_path / "<b>run"))
    assert "<img" not in page
    assert "<b>run" not in page
    assert page.count("</script>") == 2  # the data's and the viewer's
    assert "{{ 7*7 }}" in page  # no second round of templating
    data = embedded(page)
    shown = [q for g in data["groups"] for q in g["questions"] if q["id"] == HOSTILE]
    assert shown[0]["cards"][0]["steps"][0]["evidence"] == HOSTILE


def test_what_is_embedded_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_run(tmp_path / "run", questions=40, samples=2, rounds=1)
    whole = build_viewer(read_run(str(folder)), seed=0)
    assert [len(g["questions"]) for g in whole["groups"]] == [40, 40]
    assert whole["groups"][0]["told"] == ""
    monkeypatch.setattr(viewer, "BUDGET", len(json.dumps(whole)) // 3)
    small = build_viewer(read_run(str(folder)), seed=0)
    assert len(json.dumps(small)) <= viewer.BUDGET
    assert small["groups"][0]["told"].endswith("of 40, chosen by seed 0")
    monkeypatch.setattr(viewer, "BUDGET", 1)
    least = build_viewer(read_run(str(folder)), seed=0)
    assert [len(g["questions"]) for g in least["groups"]] == [1, 1]


def test_endless_texts_are_cut(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", questions=1, samples=1, rounds=1)
    path = folder / "base" / "eval" / "trajectories.jsonl"
    record = Trajectory.model_validate_json(path.read_text())
    long = "x" * 1_000_000
    step = Step(
        query=long, passages=(Passage(pid="1", title=long, text=long),), kept=(1,), evidence=long
    )
    write_jsonl(str(path), [record.model_copy(update={"steps": (step,), "answer": long})])
    assert len(page_of(folder)) < 200_000


@given(st.lists(st.text(max_size=4), max_size=30), st.integers(0, 5), st.integers(1, 10))
def test_the_choice_is_stable(ids: list[str], seed: int, limit: int) -> None:
    chosen = choose(ids, seed, limit)
    assert len(chosen) == min(limit, len(set(ids)))
    assert set(chosen) == set(choose(ids[::-1], seed, limit))
    assert set(choose(chosen, seed, limit)) == set(chosen)
    assert set(choose(ids, seed, limit)) <= set(choose(ids, seed, limit + 1))


FINITE = st.floats(-1e6, 1e6)


@given(FINITE, FINITE)
def test_ticks_enclose_their_range(a: float, b: float) -> None:
    low, high = min(a, b), max(a, b)
    ticks = round_ticks(low, high)
    assert 2 <= len(ticks) <= 8
    slack = 1e-6 * (high - low) + 1e-9
    assert ticks[0] <= low + slack
    assert ticks[-1] >= high - slack


@given(st.lists(FINITE, min_size=1, max_size=900))
def test_charts_stay_inside_their_box(values: list[float]) -> None:
    xs = tuple(float(i) for i in range(len(values)))
    drawn = curve_chart("t", [Curve("c", xs, tuple(values))])
    points = re.search(r'points="([^"]*)"', drawn)
    assert points is not None
    pairs = [tuple(map(float, p.split(","))) for p in points[1].split()]
    assert len(pairs) <= 300
    assert all(-0.1 <= x <= 400.1 and -0.1 <= y <= 236.1 for x, y in pairs)


def test_nothing_to_draw_draws_nothing() -> None:
    assert line_chart("t", ["a"], [Line("l", (Point(None),))]) == ""
    assert curve_chart("t", [Curve("c", (), ())]) == ""
    assert histogram("t", [0, 1], [("g", [0])]) == ""
    assert bars("t", []) == ""


def test_a_gap_in_a_line_is_passed_over() -> None:
    drawn = line_chart("t", ["a", "b"], [Line("l", (Point(None), Point(0.5, (0.4, 0.6))))])
    assert drawn.count("<circle") == 1
    assert "l, b: 0.5 [0.4, 0.6]" in drawn


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(None, "–"), (3.21, "3.2 s"), (42.4, "42 s"), (99.6, "2 min"), (7500, "2 h 05 min")],
)
def test_durations(seconds: float | None, said: str) -> None:
    assert duration(seconds) == said
