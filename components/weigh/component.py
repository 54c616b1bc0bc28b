"""E-step, second half: rollouts become posterior weights and weighted examples."""

from kfp import dsl

from exsearch.config import ImagesConfig


@dsl.component(base_image=ImagesConfig().tools, install_kfp_package=False)
def weigh(
    settings: str,
    number: int,
    examples: dsl.Output[dsl.Dataset],  # type: ignore[type-arg]
    metrics: dsl.Output[dsl.Metrics],  # type: ignore[type-arg]
) -> None:
    """Weigh all shards of round `number`; ESS, reachability and the rest become metrics."""
    from exsearch.components.entry import numbers, point, running

    with running(settings, f"weigh-{number}") as run:
        reason = run.steps.reason_to_stop(number)
        if reason is not None:
            run.voice.note(f"round {number} is not run: {reason}")
            point(examples, "", skipped=reason)
        else:
            found = run.do(run.steps.weigh(number))
            point(examples, run.steps.folder.iteration(number).examples, round=number)
            metrics.metadata.update(numbers(found.model_dump(mode="json")))
