"""Demonstrations for the warm-up, made from questions whose hops are known."""

from kfp import dsl

from exsearch.config import ImagesConfig


@dsl.component(base_image=ImagesConfig().retriever, install_kfp_package=False)
def warmup_data(
    settings: str,
    examples: dsl.Output[dsl.Dataset],  # type: ignore[type-arg]
) -> None:
    """Search the gold sub-queries and write gold episodes; none where a champion is at hand."""
    from exsearch.components.entry import point, running

    with running(settings, "warmup-data") as run:
        count = run.do(run.steps.demonstrate())
        point(examples, run.steps.folder.stage("warmup").examples, examples=count)
