"""The champion: the model in service, kept in one small file that each run reads and few write.

`ROOT/champion.json` names the model, the run that made it, its measure and those before it.
"""

from __future__ import annotations

import time
from typing import Any

from pydantic import ValidationError

from exsearch.agent.model_files import model_digest
from exsearch.config import DataConfig, RunConfig, dump, parse
from exsearch.errors import ExSearchError, StorageError
from exsearch.records import Record, canonical_json
from exsearch.retrieval.info import INFO
from exsearch.storage import digest_bytes, exists, identity, join, read_json, read_text, write_json

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
            compared with one that is no longer in service.
    """
    before = read_champion(root)
    model = str(summary["champion"])
    digest = model_digest(model)
    if before is not None and before.current.digest == digest:
        return before.current
    if before is not None and before.current.model != config.model.path:
        raise ExSearchError(
            f"{model} was compared with {config.model.path}, but {before.current.model} has "
            f"become champion since (by {before.current.run}). Nothing was changed; the next run "
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
    record = Champion(current=new, history=earlier[:KEPT])
    write_json(champion_path(root), record.model_dump(mode="json"))
    return new


def from_champion(config: RunConfig, root: str) -> RunConfig:
    """The settings of a run that starts from the current champion, if there is one.

    A champion has had its warm-up; the rounds start from it, and it is whom the gate
    compares with.
    """
    champion = read_champion(root)
    if champion is None:
        return config
    return config.model_copy(
        update={
            "model": config.model.model_copy(update={"path": champion.current.model}),
            "data": config.data.model_copy(update={"warmup": ()}),
            "gate": config.gate.model_copy(update={"champion": ""}),
        }
    )


SHAPES_INDEX = {"checkpoint", "nbits", "doc_maxlen", "query_maxlen", "dtype"}
"""Retrieval settings that an index depends on."""


def resolve(config: RunConfig, root: str, run: str, job: str) -> RunConfig:
    """The settings of one run of the recurring pipeline.

    Args:
        root: folder or URL that holds runs, indexes and the champion's record.
        run: the run's folder; empty: `ROOT/runs/JOB`.
        job: name of the pipeline run.

    Returns:
        settings with the run's own folder, the current champion as the model to start from,
        and, where none is named, an index that all runs over the same corpus share. A run that
        has begun goes on from the model it began with.

    Raises:
        StorageError: the corpus cannot be read.
    """
    folder = run or join(root, "runs", job)
    config = config.model_copy(update={"run": folder})
    begun = join(folder, "run.yaml")
    if exists(begun):
        before = parse(read_text(begun), source=begun)
        config = config.model_copy(
            update={
                "model": config.model.model_copy(update={"path": before.model.path}),
                "data": config.data.model_copy(update={"warmup": before.data.warmup}),
            }
        )
    else:
        config = from_champion(config, root)
    return config if config.retrieval.url or config.retrieval.index else _share_index(config, root)


def _share_index(config: RunConfig, root: str) -> RunConfig:
    made_of = {
        "corpus": identity(config.data.corpus),
        "settings": config.retrieval.model_dump(include=SHAPES_INDEX),
    }
    name = digest_bytes(canonical_json(made_of).encode())
    retrieval = config.retrieval.model_copy(update={"index": join(root, "indexes", name, "index")})
    return config.model_copy(update={"retrieval": retrieval})


def index_settings(resolved: RunConfig, job: str) -> str:
    """The settings of the index steps alone, as YAML: equal for all runs over one corpus.

    Kubeflow may thus reuse what they gave, as long as the index is there: where it is not, a
    comment with this job's name makes the text another one.
    """
    index = resolved.retrieval.index
    there = bool(index) and exists(join(index, INFO))
    alone = RunConfig(
        run=index.rpartition("/")[0] or resolved.run,
        data=DataConfig(corpus=resolved.data.corpus, skip_bad=resolved.data.skip_bad),
        retrieval=resolved.retrieval,
        cluster=resolved.cluster,
    )
    return f"# index: {'there' if there else 'to be built by ' + job}\n{dump(alone)}"
