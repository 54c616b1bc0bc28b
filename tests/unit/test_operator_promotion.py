"""A promoted model's way, as a table and as a machine that is interrupted anywhere."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exsearch.em.champion import Promotion
from exsearch.operator.canary import Figures, Judgement, judge
from exsearch.operator.kinds import PROMOTE, PROMOTION, ROLLBACK, WITHDRAW
from exsearch.operator.models import read_standing, write_standing
from exsearch.operator.promotion import (
    Candidate,
    Moment,
    Standing,
    Step,
    advance,
    resolve_rollback,
)
from exsearch.operator.spec import CanaryConfig
from exsearch.operator.status import change

pytestmark = pytest.mark.unit


def promotion(name: str, withdrawn: str = "") -> Promotion:
    return Promotion(
        model=f"/mnt/{name}", digest=name, run=f"run-{name}", promoted=1.5, reason="better",
        metrics={"em": 0.5}, withdrawn=withdrawn,
    )  # fmt: skip


def candidate(name: str, since: float) -> Candidate:
    return Candidate(**promotion(name).model_dump(), since=since)


def moment(**more: Any) -> Moment:
    return Moment(**{"now": 100.0, "trial": True, "pinned": False, "kept": 10, **more})


A, B, C = promotion("a"), promotion("b"), promotion("c")
ON_TRIAL = Standing(A, candidate("b", 50.0))
GOOD, BAD = Judgement("promote", "fine"), Judgement("roll back", "too slow")
PROMOTE_C = {PROMOTION: C.model_dump_json()}

TABLE: list[tuple[str, Standing, dict[str, str], Moment, tuple[Any, ...]]] = [
    # what, before, annotations, moment → champion, candidate (since), withdrawn, events
    ("nothing", Standing(A), {}, moment(), ("a", None, (), [])),
    ("first", Standing(), PROMOTE_C, moment(trial=False), ("c", None, (), ["Promoted"])),
    ("trial", Standing(A), PROMOTE_C, moment(), ("a", ("c", 100.0), (), ["CanaryStarted"])),
    ("pinned", Standing(A), PROMOTE_C, moment(pinned=True),
     ("a", ("c", 0.0), (), ["PromotionWaits"])),
    ("unpinned", Standing(A, candidate("c", 0.0)), {}, moment(),
     ("a", ("c", 100.0), (), ["CanaryStarted"])),
    ("pinned amid a trial", ON_TRIAL, {}, moment(pinned=True), ("a", ("b", 0.0), (), [])),
    ("goes on", ON_TRIAL, {}, moment(judgement=Judgement("go on", "")),
     ("a", ("b", 50.0), (), [])),
    ("blind", ON_TRIAL, {}, moment(), ("a", ("b", 50.0), (), [])),
    ("good", ON_TRIAL, {}, moment(judgement=GOOD), ("b", None, (), ["Promoted"])),
    ("bad", ON_TRIAL, {}, moment(judgement=BAD), ("a", None, ("b",), ["RolledBack"])),
    ("overtaken", ON_TRIAL, PROMOTE_C, moment(),
     ("a", ("c", 100.0), ("b",), ["CanaryStarted"])),
    ("by hand", ON_TRIAL, {PROMOTE: "now"}, moment(), ("b", None, (), ["Promoted"])),
    ("by hand, pinned", ON_TRIAL, {PROMOTE: "now"}, moment(pinned=True),
     ("a", ("b", 0.0), (), ["NothingToPromote"])),
    ("trial switched off", ON_TRIAL, {}, moment(trial=False), ("b", None, (), ["Promoted"])),
    ("withdraw candidate", ON_TRIAL, {WITHDRAW: "b rude"}, moment(),
     ("a", None, ("b",), ["RolledBack"])),
    ("withdraw champion", Standing(B, None, (A,)), {WITHDRAW: "b rude"}, moment(),
     ("a", None, ("b",), ["RolledBack"])),
    ("withdraw over withdrawn", Standing(C, None, (promotion("b", "rude"), A)),
     {WITHDRAW: "c slow"}, moment(), ("a", None, ("b", "c"), ["RolledBack"])),
    ("withdraw the only one", Standing(A), {WITHDRAW: "a rude"}, moment(),
     (None, None, ("a",), ["RolledBack"])),
    ("withdraw again", Standing(A, None, (promotion("b", "rude"),)), {WITHDRAW: "b rude"},
     moment(), ("a", None, ("b",), [])),
    ("withdraw nothing", Standing(), {WITHDRAW: "- rude"}, moment(),
     (None, None, (), ["NothingToRollBack"])),
    ("withdrawn comes again", Standing(A, None, (promotion("c", "rude"),)), PROMOTE_C, moment(),
     ("a", None, ("c",), [])),
    ("no promotion", Standing(A), {PROMOTION: "{"}, moment(), ("a", None, (), ["BadPromotion"])),
]  # fmt: skip


@pytest.mark.parametrize(
    ("before", "annotations", "at", "after"), [row[1:] for row in TABLE], ids=[r[0] for r in TABLE]
)
def test_what_becomes_of_models(
    before: Standing, annotations: dict[str, str], at: Moment, after: tuple[Any, ...]
) -> None:
    step = advance(before, annotations, at)
    found = step.standing
    trial = found.candidate and (found.candidate.digest, found.candidate.since)
    assert (
        found.champion and found.champion.digest, trial, found.withdrawn,
        [told.reason for told in step.told],
    ) == after  # fmt: skip
    assert step.answered == annotations
    assert advance(found, annotations, at).standing == found, "seen again it asks for nothing new"


@pytest.mark.parametrize(
    ("standing", "digest"),
    [(ON_TRIAL, "b"), (Standing(A), "a"), (Standing(), "-")],
    ids=["candidate", "champion", "base model"],
)
def test_a_rollback_is_resolved_to_the_model_that_it_is_about(
    standing: Standing, digest: str
) -> None:
    found = resolve_rollback(standing, {ROLLBACK: " worse on dates "})
    assert found == {ROLLBACK: None, WITHDRAW: f"{digest} worse on dates"}
    assert resolve_rollback(standing, {}) == {}


def test_only_so_many_promotions_are_remembered() -> None:
    standing = Standing()
    for number in range(6):
        new = {PROMOTION: promotion(f"p{number}").model_dump_json()}
        standing = advance(standing, new, moment(trial=False, kept=3)).standing
    assert [p.digest for p in standing.history] == ["p4", "p3", "p2"]


requests = st.sampled_from(
    [
        {},
        {PROMOTE: "now"},
        {ROLLBACK: "rude"},
        *({PROMOTION: p.model_dump_json()} for p in (A, B, C)),
    ]
)
judgements = st.sampled_from([None, GOOD, BAD, Judgement("go on", "")])


def told(step: Step) -> set[tuple[str, str]]:
    return {(one.reason, one.key) for one in step.told if one.transition}


@given(st.lists(st.tuples(requests, judgements, st.booleans(), st.booleans(), st.booleans())))
def test_whatever_is_asked_and_however_often_it_is_interrupted(
    story: list[tuple[dict[str, str], Judgement | None, bool, bool, bool]],
) -> None:
    """Two operators live through the same; one dies before each request is removed."""
    one, other = Standing(), Standing()
    for number, (asked, judgement, trial, pinned, dies) in enumerate(story):
        resolved = {k: v for k, v in {**asked, **resolve_rollback(one, asked)}.items() if v}
        at = moment(now=100.0 + number, trial=trial, pinned=pinned, judgement=judgement)
        step = advance(one, resolved, at)
        one = step.standing
        other = read_standing(json.loads(json.dumps(write_standing(other))))
        other = advance(other, resolved, at).standing
        if dies:
            # It reads what it wrote, and the request that is still there; no figures yet.
            other = read_standing(json.loads(json.dumps(write_standing(other))))
            again = advance(other, resolved, moment(now=100.0 + number, trial=trial, pinned=pinned))
            assert not told(again) - told(step)
            other = again.standing
        assert write_standing(other) == write_standing(one)
        served = one.candidate or one.champion
        assert served is None or served.digest not in one.withdrawn


leaves = st.none() | st.integers(0, 3) | st.text("ab", max_size=2)
trees = st.dictionaries(
    st.sampled_from("abc"), leaves | st.dictionaries(st.sampled_from("de"), leaves), max_size=3
)


def without_nulls(tree: dict[str, Any]) -> dict[str, Any]:
    return {
        key: without_nulls(value) if isinstance(value, dict) else value
        for key, value in tree.items()
        if value is not None
    }


@given(trees, trees)
def test_a_change_of_the_status_is_the_merge_patch(
    before: dict[str, Any], after: dict[str, Any]
) -> None:
    from kube_api.patches import merge

    before, after = without_nulls(before), without_nulls(after)
    assert merge(before, change(after, before)) == after
    assert change(after, after) == {}


BUDGET = CanaryConfig(minutes=30, min_requests=50, max_error_rate=0.02, max_latency=20)
NAN = float("nan")
JUDGED = [
    # requests, errors, p95, minutes → verdict
    (0, 0, NAN, 10, "go on"),
    (0, 0, NAN, 600, "go on"),
    (49, 0, 1.0, 31, "go on"),
    (50, 0, 1.0, 29, "go on"),
    (50, 0, 1.0, 30, "promote"),
    (50, 1, 1.0, 30, "promote"),
    (3, 1, 1.0, 1, "go on"),  # one of three is no verdict: fifty may follow
    (3, 2, 1.0, 1, "roll back"),
    (1000, 20, 1.0, 30, "promote"),
    (1000, 21, 1.0, 30, "roll back"),
    (20, 0, 60.0, 1, "go on"),
    (50, 0, 20.1, 1, "roll back"),
    (50, 0, NAN, 30, "promote"),
]


@pytest.mark.parametrize(("requests", "errors", "latency", "minutes", "verdict"), JUDGED)
def test_a_candidate_is_held_to_its_budget(
    requests: int, errors: int, latency: float, minutes: float, verdict: str
) -> None:
    assert judge(BUDGET, Figures(requests, errors, latency), 60 * minutes).verdict == verdict
