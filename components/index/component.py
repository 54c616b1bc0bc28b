"""The ColBERT index: encoded by many pods, merged by one; an index that is there is kept."""

from kfp import dsl

from exsearch.config import ImagesConfig


@dsl.component(base_image=ImagesConfig().retriever, install_kfp_package=False)
def encode(settings: str, shard: int, shards: int) -> None:
    """Encode every `shards`-th part of the corpus from part `shard` on; resumes after a kill."""
    from exsearch.components.entry import running

    with running(settings, f"encode-{shard}") as run:
        run.steps.encode(shard, shards)


@dsl.component(base_image=ImagesConfig().retriever, install_kfp_package=False)
def merge(settings: str, index: dsl.Output[dsl.Dataset]) -> None:  # type: ignore[type-arg]
    """Make the index from the encoded parts."""
    from exsearch.components.entry import point, running

    with running(settings, "index") as run:
        run.do(run.steps.index())
        facts = run.steps.index_facts()
        point(index, run.steps.index_folder, **facts)
