"""Weighted supervised tuning, here or as a job of the cluster: the warm-up and the M-step."""

from kfp import dsl

from exsearch.config import ImagesConfig


@dsl.component(base_image=ImagesConfig().tools, install_kfp_package=False)
def train(
    settings: str,
    number: int,
    model: dsl.Output[dsl.Model],  # type: ignore[type-arg]
    metrics: dsl.Output[dsl.Metrics],  # type: ignore[type-arg]
) -> None:
    """Train round `number`; 0 is the warm-up.

    The job is launched by `cluster.training.launcher`. Where there is nothing to learn (a
    champion needs no warm-up; no question was reached) the model stays the one before.
    """
    from exsearch.components.entry import numbers, point, running
    from exsearch.em.layout import iteration_name

    name = iteration_name(number) if number else "warmup"
    with running(settings, f"{name}-train") as run:
        steps = run.steps
        if number and steps.reason_to_stop(number) is not None:
            trained = None
        else:
            trained = run.do(steps.align(number) if number else steps.warm_up())
        newest = trained or steps.before(number)
        outputs = steps.ledger.outputs(f"{name}/train")
        point(model, newest.path, stage=newest.stage, trained=bool(outputs))
        metrics.metadata.update(numbers(outputs))
