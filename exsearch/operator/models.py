"""An agent's models, to and from its status. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from exsearch.em.champion import Promotion
from exsearch.operator.promotion import Candidate, Standing

Status = dict[str, Any]

MODELS = ("champion", "candidate", "history")
"""Fields of the status that tell of them."""


def read_standing(status: Mapping[str, Any]) -> Standing:
    """The models of an agent, from its status."""
    candidate = status.get("candidate")
    champion = status.get("champion")
    return Standing(
        champion=Promotion.model_validate(_read(champion)) if champion else None,
        candidate=Candidate.model_validate({"since": 0.0, **_read(candidate)})
        if candidate
        else None,
        history=tuple(Promotion.model_validate(_read(p)) for p in status.get("history", [])),
    )


def write_standing(standing: Standing) -> Status:
    """The models as the status has them; what is empty is left out."""
    found: Status = {}
    if standing.champion is not None:
        found["champion"] = _write(standing.champion)
    if standing.candidate is not None:
        found["candidate"] = _write(standing.candidate)
    if standing.history:
        found["history"] = [_write(promotion) for promotion in standing.history]
    return found


MEASURES = ("em", "f1", "accuracy")


def _read(value: Mapping[str, Any]) -> dict[str, Any]:
    times = {key: _seconds(value[key]) for key in ("promoted", "since") if key in value}
    return {"run": "", "reason": "", "metrics": {}, "promoted": 0.0, **value, **times}


def _write(promotion: Promotion) -> dict[str, Any]:
    found = promotion.model_dump(mode="json", exclude={"withdrawn", "since"})
    found["promoted"] = timestamp(promotion.promoted)
    found["metrics"] = {name: v for name, v in promotion.metrics.items() if name in MEASURES}
    if promotion.withdrawn:
        found["withdrawn"] = promotion.withdrawn
    if isinstance(promotion, Candidate) and promotion.since:
        found["since"] = timestamp(promotion.since)
    return found


def timestamp(seconds: float) -> str:
    """RFC 3339, in UTC, with milliseconds."""
    moment = datetime.fromtimestamp(seconds, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _seconds(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()
