"""The champion: the model in service, kept in one small file that each run reads and few write.

`ROOT/champion.json` names the model, the run that made it, its measure and those before it. A
promotion puts a new one on top; a rollback withdraws that one and restores the one before.
"""

from __future__ import annotations

import time
from collections.abc import Collection
from typing import Any

from pydantic import ValidationError

from exsearch.agent.model_files import model_digest
from exsearch.config import RunConfig
from exsearch.errors import ExSearchError, InputError, StorageError
from exsearch.records import Record
from exsearch.storage import exists, join, read_json, write_json

KEPT = 20
"""Earlier champions remembered."""


class Promotion(Record):
    """One model's way into service."""

    model: str
    """Its folder or URL."""
    digest: str
    """Digest of its weights."""
    run: str
    """The run that made it."""
    promoted: float
    """When, in seconds since the epoch."""
    reason: str
    """The gate's words."""
    metrics: dict[str, float]
    """What it measured on that run's test questions."""
    withdrawn: str = ""
    """Why it was rolled back; empty: it was not."""


class Champion(Record):
    """The model in service and those before it, the newest first."""

    current: Promotion
    history: tuple[Promotion, ...] = ()


def champion_path(root: str) -> str:
    return join(root, "champion.json")


def read_champion(root: str) -> Champion | None:
    """The current champion; None before the first promotion.

    Raises:
        StorageError: the record is damaged.
    """
    path = champion_path(root)
    if not exists(path):
        return None
    try:
        return Champion.model_validate(read_json(path))
    except ValidationError as error:
        raise StorageError(
            f"{path} is no champion record: {error}. Restore it from a backup, or remove it to "
            "begin again from the base model."
        ) from error


def promote(root: str, config: RunConfig, summary: dict[str, Any]) -> Promotion:
    """Make the champion of a run's summary the champion of `root`; the same one only once.

    Args:
        summary: content of the run's `summary.json`, whose gate promoted.

    Raises:
        ExSearchError: another model became champion since the run began, so that its gate
            compared with one that is no longer in service; or the model was rolled back.
    """
    before = read_champion(root)
    model = str(summary["champion"])
    digest = model_digest(model)
    if before is not None:
        _refuse_withdrawn(before, model, digest)
    current = None if before is None or before.current.withdrawn else before.current
    if current is not None and current.digest == digest:
        return current
    if current is not None and current.model != config.model.path:
        raise ExSearchError(
            f"{model} was compared with {config.model.path}, but {current.model} has "
            f"become champion since (by {current.run}). Nothing was changed; the next run "
            "starts from it."
        )
    name = summary["gate"]["figures"]["comparison"]["candidate"]
    stage = next(stage for stage in summary["stages"] if stage["name"] == name)
    measured = {m: stage[m] for m in ("em", "f1", "accuracy") if stage.get(m) is not None}
    new = Promotion(
        model=model,
        digest=digest,
        run=config.run,
        promoted=round(time.time(), 3),
        reason=summary["gate"]["reason"],
        metrics=measured,
    )
    earlier = () if before is None else (before.current, *before.history)
    _write(root, Champion(current=new, history=earlier[:KEPT]))
    return new


def _write(root: str, record: Champion) -> None:
    write_json(champion_path(root), record.model_dump(mode="json"))


def _refuse_withdrawn(record: Champion, model: str, digest: str) -> None:
    """A deploy step that is tried again must not undo a rollback."""
    for earlier in (record.current, *record.history):
        if earlier.digest == digest:
            if earlier.withdrawn:
                raise ExSearchError(
                    f"{model} was champion and was rolled back ({earlier.withdrawn}). Nothing was "
                    "changed; a new run, which starts from the champion, may promote another one"
                )
            return


def previous(record: Champion) -> Promotion | None:
    """The promotion that a rollback restores; None where there is none left.

    The newest one before the current that was not withdrawn itself. Rolling back twice thus
    goes back by two, never to and fro.
    """
    passed = {record.current.digest}
    for earlier in record.history:
        if earlier.withdrawn:
            passed.add(earlier.digest)
        elif earlier.digest not in passed:
            return earlier
    return None


def restorable(root: str) -> tuple[Champion, Promotion]:
    """The record, and the promotion to restore, whose model is there and is the one promoted.

    Raises:
        InputError: there was no promotion, or none before the current one, or its model's
            folder is gone or damaged.
        ExSearchError: the model in that folder is another one by now.
    """
    record = read_champion(root)
    if record is None:
        raise InputError(
            f"{champion_path(root)} is not there: no model has been promoted, so there is nothing "
            "to go back from. --root (cluster.storage.root) says where the record is"
        )
    target = previous(record)
    if target is None:
        raise InputError(
            f"{champion_path(root)} holds no promotion before {record.current.model} to go back to"
        )
    found = model_digest(target.model)
    if found != target.digest:
        raise ExSearchError(
            f"{target.model} has changed since it was promoted: its digest is {found}, not "
            f"{target.digest}. Put the promoted weights back, or promote another model"
        )
    return record, target


def roll_back(root: str, seen: Champion, target: Promotion, why: str) -> Champion:
    """Make an earlier promotion the current one; the one it replaces stays in the history.

    Args:
        seen: the record as `restorable` gave it.
        why: the reason, kept with the model that is withdrawn.

    Returns:
        the record as written.

    Raises:
        ExSearchError: somebody else changed the record meanwhile.
    """
    if read_champion(root) != seen:
        raise ExSearchError(
            f"{champion_path(root)} changed while this rollback was under way; look at "
            "`exsearch agent status` and run it again"
        )
    restored = target.model_copy(
        update={
            "promoted": round(time.time(), 3),
            "reason": f"rolled back to, from {seen.current.model}: {why}",
        }
    )
    withdrawn = seen.current.model_copy(update={"withdrawn": why})
    record = Champion(current=restored, history=(withdrawn, *seen.history)[:KEPT])
    _write(root, record)
    return record


def skip_withdrawn(root: str, withdrawn: Collection[str]) -> Champion | None:
    """The record, rolled back over models that were taken out of service elsewhere.

    A SearchAgent's operator withdraws a model where it serves, and reaches no volume; the record
    follows when the next run begins. The record itself changes, or that run's promotion would be
    refused: it was not compared with the record's model.

    Args:
        withdrawn: digests of those models (`cluster.deploy.withdrawn`).

    Returns:
        None where no champion is left: the run starts from the base model. The record then
        keeps the last one, withdrawn, so that it is not promoted again.
    """
    record = read_champion(root)
    if record is None:
        return None
    if record.current.digest in withdrawn:
        record = _rolled_back_over(record, withdrawn)
        _write(root, record)
    return None if record.current.withdrawn else record


def _rolled_back_over(record: Champion, withdrawn: Collection[str]) -> Champion:
    why = "taken out of service by its SearchAgent"

    def marked(promotion: Promotion) -> Promotion:
        if promotion.withdrawn or promotion.digest not in withdrawn:
            return promotion
        return promotion.model_copy(update={"withdrawn": why})

    current = marked(record.current)
    history = tuple(marked(promotion) for promotion in record.history)
    target = previous(Champion(current=current, history=history))
    if target is None:
        return Champion(current=current, history=history)
    restored = target.model_copy(update={"reason": f"rolled back to, from {current.model}: {why}"})
    return Champion(current=restored, history=(current, *history)[:KEPT])
