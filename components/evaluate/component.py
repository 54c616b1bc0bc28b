"""One model on the test questions: EM, F1, retrieval, searches against the hops needed."""

from kfp import dsl

from exsearch.config import ImagesConfig


@dsl.component(base_image=ImagesConfig().rollout, install_kfp_package=False)
def evaluate(
    settings: str,
    stage: str,
    evaluation: dsl.Output[dsl.Dataset],  # type: ignore[type-arg]
    metrics: dsl.Output[dsl.Metrics],  # type: ignore[type-arg]
    searches: dsl.Output[dsl.ClassificationMetrics],  # type: ignore[type-arg]
) -> None:
    """Measure the model of a stage (`base`, `warmup`, `iter-01`, …) by greedy episodes.

    `searches` is the matrix of hops a question needs against searches made. A stage that
    trained nothing is not measured a second time.
    """
    from exsearch.components.entry import numbers, point, running
    from exsearch.evaluation.files import load_evaluation
    from exsearch.evaluation.searches import search_matrix

    with running(settings, f"evaluate-{stage}") as run:
        model = run.steps.model_of(stage)
        if model is None:
            run.voice.note(f"stage {stage} has no model of its own: nothing to measure")
            point(evaluation, "", skipped="no model of its own")
            return
        summary = run.do(run.steps.evaluate(model))
        if run.settings.em.patience and stage.startswith("iter-"):
            run.do(run.steps.evaluate_on_dev(model))
        folder = run.steps.folder.stage(stage).evaluation
        point(evaluation, folder, model=model.path)
        metrics.metadata.update(numbers(summary.model_dump(mode="json")))
        names, counts = search_matrix(load_evaluation(folder).judgements)
        searches.log_confusion_matrix(names, counts)
