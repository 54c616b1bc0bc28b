"""A promoted model's way: candidate, champion, or withdrawn. Pure.

    promotion → candidate (on trial, or waiting while another model is pinned) → champion
                         └ out of its budget, or rolled back by hand → withdrawn

Everything is in the agent's status and annotations, so that whoever starts next goes on. The
order of writing makes it safe to stop anywhere: first the status, which decides what is served;
then the InferenceService; then the annotation that asked for it is removed. A request that is
still there although the status already tells of it asks for nothing new.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from pydantic import ValidationError

from exsearch.em.champion import Champion, Promotion, previous
from exsearch.operator.canary import Judgement
from exsearch.operator.kinds import PROMOTE, PROMOTION, REQUESTS, ROLLBACK, WITHDRAW

Transition = Literal["canary_started", "promoted", "rolled_back", "pinned", "suspended", "resumed"]


class Candidate(Promotion):
    """A promoted model that is not the champion yet."""

    since: float
    """When its trial began, in seconds since the epoch; 0: it waits."""

    def promotion(self) -> Promotion:
        """Without its trial."""
        return Promotion.model_validate(self.model_dump(exclude={"since"}))


@dataclass(frozen=True)
class Told:
    """An event for people, and what counts as the same one."""

    reason: str
    message: str
    warning: bool = False
    transition: Transition | None = None
    key: str = ""
    """With the reason, makes the event's name: one told twice is one event."""


@dataclass(frozen=True)
class Standing:
    """Which models an agent has, as its status tells."""

    champion: Promotion | None = None
    candidate: Candidate | None = None
    history: tuple[Promotion, ...] = ()

    @property
    def withdrawn(self) -> tuple[str, ...]:
        """Digests of the models that were taken out of service, in a fixed order."""
        return tuple(sorted({p.digest for p in self.history if p.withdrawn}))

    def knows(self, digest: str) -> bool:
        """Whether this model has come this way before."""
        every = (self.champion, self.candidate, *self.history)
        return any(p is not None and p.digest == digest for p in every)


@dataclass(frozen=True)
class Moment:
    """All that decides what becomes of an agent's models."""

    now: float
    trial: bool
    """A new model is tried before it becomes champion."""
    pinned: bool
    """Another model is served, whatever is promoted."""
    kept: int
    """Promotions remembered."""
    judgement: Judgement | None = None
    """Of the candidate, where it is on trial."""


@dataclass(frozen=True)
class Step:
    """What the models are from here on."""

    standing: Standing
    told: tuple[Told, ...] = ()
    answered: Mapping[str, str] = field(default_factory=dict)
    """Annotations that this step carries out, with the values that it saw."""


def resolve_rollback(standing: Standing, annotations: Mapping[str, str]) -> dict[str, Any]:
    """The annotations that say which model a rollback is about, in place of the request.

    Written before anything is done about it: a request for *the current model* carried out
    twice would go back by two.

    Returns:
        a change of the annotations; empty: nobody asks for a rollback.
    """
    if ROLLBACK not in annotations:
        return {}
    # While a candidate is tried, it is what one wants to be rid of.
    current = standing.candidate or standing.champion
    reason = annotations[ROLLBACK].strip() or "no reason given"
    return {ROLLBACK: None, WITHDRAW: f"{current.digest if current else '-'} {reason}"}


def advance(standing: Standing, annotations: Mapping[str, str], moment: Moment) -> Step:
    """Carry out what is asked for and what is due.

    Args:
        annotations: of the agent; a rollback as `resolve_rollback` wrote it.
    """
    step = Step(standing, answered={k: annotations[k] for k in REQUESTS if k in annotations})
    if WITHDRAW in annotations:
        digest, _, reason = annotations[WITHDRAW].partition(" ")
        step = _withdraw(step, digest, reason, moment)
    if PROMOTE in annotations:
        step = _promote_now(step, moment)
    if PROMOTION in annotations:
        step = _take(step, annotations[PROMOTION], moment)
    return _go_on(step, moment)


def _then(step: Step, standing: Standing, *told: Told) -> Step:
    return replace(step, standing=standing, told=(*step.told, *told))


def _take(step: Step, text: str, moment: Moment) -> Step:
    """A promotion: it becomes the candidate. The trial, if there is one, begins later."""
    try:
        new = Promotion.model_validate(json.loads(text))
    except (ValueError, ValidationError) as error:
        words = f"the annotation {PROMOTION} is no promotion and was removed: {error}"
        return _then(step, step.standing, Told("BadPromotion", words[:900], True, key=text))
    standing = step.standing
    if standing.knows(new.digest):
        return step
    if standing.candidate is not None:
        # The newer one was better than it in the gate, whose champion it was.
        passed = standing.candidate.promotion().model_copy(
            update={"withdrawn": f"overtaken by {new.run} before its trial ended"}
        )
        standing = _remember(replace(standing, candidate=None), passed, moment)
    candidate = Candidate(**new.model_dump(), since=0.0)
    after = replace(standing, candidate=candidate)
    if not moment.pinned:
        return _then(step, after)
    words = f"{new.model} was promoted by {new.run}; it waits, as another model is pinned"
    return _then(step, after, Told("PromotionWaits", words, key=new.digest))


def _go_on(step: Step, moment: Moment) -> Step:
    """What is due for the candidate: its trial begins, ends well, or ends badly."""
    candidate = step.standing.candidate
    if candidate is None:
        return step
    if moment.pinned:
        # What it has done so far says nothing of the time after.
        waiting = candidate.model_copy(update={"since": 0.0})
        return _then(step, replace(step.standing, candidate=waiting))
    if not moment.trial:
        return _crown(step, moment, "promoted at once: spec.canary is not set")
    if candidate.since == 0.0:
        begun = candidate.model_copy(update={"since": round(moment.now, 3)})
        told = Told(
            "CanaryStarted",
            f"{candidate.model} ({candidate.run}) is on trial",
            transition="canary_started",
            key=f"{candidate.digest} {begun.since}",
        )
        return _then(step, replace(step.standing, candidate=begun), told)
    match moment.judgement:
        case Judgement("promote", why):
            return _crown(step, moment, why)
        case Judgement("roll back", why):
            return _withdraw(step, candidate.digest, why, moment)
        case _:
            return step


def _promote_now(step: Step, moment: Moment) -> Step:
    candidate = step.standing.candidate
    if candidate is None or moment.pinned:
        why = "another model is pinned" if moment.pinned else "no candidate is on trial"
        told = Told("NothingToPromote", f"nothing was promoted: {why}", True, key=str(moment.now))
        return _then(step, step.standing, told)
    return _crown(step, moment, "its trial was ended by hand")


def _crown(step: Step, moment: Moment, why: str) -> Step:
    """The candidate becomes champion; the champion before it is remembered."""
    standing = step.standing
    assert standing.candidate is not None
    new = standing.candidate.promotion()
    after = Standing(champion=new, candidate=None, history=standing.history)
    if standing.champion is not None:
        after = _remember(after, standing.champion, moment)
    told = Told(
        "Promoted", f"{new.model} ({new.run}) is the champion: {why}",
        transition="promoted", key=new.digest,
    )  # fmt: skip
    return _then(step, after, told)


def _withdraw(step: Step, digest: str, reason: str, moment: Moment) -> Step:
    """Take a model out of service; nothing where it is in none."""
    standing = step.standing
    if standing.candidate is not None and standing.candidate.digest == digest:
        bad = standing.candidate.promotion().model_copy(update={"withdrawn": reason})
        after = _remember(replace(standing, candidate=None), bad, moment)
        return _then(step, after, _rolled_back(bad, after.champion, reason))
    if standing.champion is not None and standing.champion.digest == digest:
        bad = standing.champion.model_copy(update={"withdrawn": reason})
        target = previous(Champion(current=bad, history=standing.history))
        restored = target and target.model_copy(
            update={
                "promoted": round(moment.now, 3),
                "reason": f"rolled back to, from {bad.model}: {reason}",
            }
        )
        after = _remember(replace(standing, champion=restored), bad, moment)
        return _then(step, after, _rolled_back(bad, restored, reason))
    if not standing.knows(digest):
        told = Told("NothingToRollBack", "no model that a run promoted is in service", True,
                    key=str(moment.now))  # fmt: skip
        return _then(step, standing, told)
    return step


def _rolled_back(bad: Promotion, to: Promotion | None, reason: str) -> Told:
    back = to.model if to else "the base model"
    message = f"{bad.model} ({bad.run}) is withdrawn: {reason}. {back} has all the requests"
    return Told("RolledBack", message, True, transition="rolled_back", key=bad.digest)


def _remember(standing: Standing, promotion: Promotion, moment: Moment) -> Standing:
    return replace(standing, history=(promotion, *standing.history)[: moment.kept])
