"""The settings of one run of the recurring pipeline: its own folder, the champion of its day, and
the index that all runs over a corpus share."""

from __future__ import annotations

from exsearch.config import DataConfig, RunConfig, dump, parse
from exsearch.em.champion import skip_withdrawn
from exsearch.records import canonical_json
from exsearch.retrieval.info import INFO
from exsearch.storage import digest_bytes, exists, identity, join, read_text

SHAPES_INDEX = {"checkpoint", "nbits", "doc_maxlen", "query_maxlen", "dtype"}
"""Retrieval settings that an index depends on."""


def resolve(config: RunConfig, root: str, run: str, job: str) -> RunConfig:
    """The settings of one run of the recurring pipeline.

    Args:
        root: folder or URL that holds runs, indexes and the champion's record.
        run: the run's folder; empty: `ROOT/runs/JOB`.
        job: name of the pipeline run.

    Returns:
        settings with the run's own folder, the current champion as the model to start from and
        to beat, and, where none is named, an index that all runs over the same corpus share. A
        run that has begun goes on from the model it began with.

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
        config = _from_champion(config, root)
    # What is in service is to be beaten: before the first promotion that is the base model, not
    # this run's own warm-up.
    gate = config.gate.model_copy(update={"champion": config.model.path})
    config = config.model_copy(update={"gate": gate})
    return config if config.retrieval.url or config.retrieval.index else _share_index(config, root)


def _from_champion(config: RunConfig, root: str) -> RunConfig:
    """The settings of a run that starts from the current champion, if there is one.

    A champion has had its warm-up; the rounds start from it. Models that were taken out of
    service are passed over.
    """
    champion = skip_withdrawn(root, config.cluster.deploy.withdrawn)
    if champion is None:
        return config
    return config.model_copy(
        update={
            "model": config.model.model_copy(update={"path": champion.current.model}),
            "data": config.data.model_copy(update={"warmup": ()}),
        }
    )


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
