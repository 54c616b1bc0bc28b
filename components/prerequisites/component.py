"""Everything that must be there before a run spends anything, and the settings it runs with."""

from typing import NamedTuple

from kfp import dsl

from exsearch.config import ImagesConfig


@dsl.component(base_image=ImagesConfig().tools, install_kfp_package=False)
def prerequisites(
    config: str,
    root: str,
    run: str,
    job: str,
) -> NamedTuple("Outputs", [("settings", str), ("index", str), ("start", str)]):  # type: ignore[valid-type]
    """Check the cluster, the storage, the model and the data; say all problems at once.

    Args:
        config: the run's settings, as YAML.
        root: folder or URL that holds runs, indexes and the champion's record.
        run: the run's folder; empty: ROOT/runs/JOB.
        job: name of this pipeline run.

    Returns:
        settings: the settings all other steps use: the run's own folder, the shared index's,
            and the current champion as the model to start from.
        index: the part of them that the index steps depend on.
        start: the model the run starts from.
    """
    from collections import namedtuple

    from exsearch import config as settings
    from exsearch.components.entry import failing_in_words
    from exsearch.em.record import begin_run
    from exsearch.em.resolve import index_settings, resolve
    from exsearch.kube.prerequisites import check
    from exsearch.storage import join

    folder = run or join(root, "runs", job)
    with failing_in_words(config, "prerequisites", folder):
        resolved = resolve(settings.parse(config), root, run, job)
        check(resolved)
        begin_run(resolved)
    outputs = namedtuple("Outputs", ["settings", "index", "start"])
    alone = index_settings(resolved, job)
    return outputs(settings.dump(resolved), alone, resolved.model.path)
