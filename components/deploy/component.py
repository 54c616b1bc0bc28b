"""A promoted model becomes the champion, and the InferenceService serves it."""

from kfp import dsl

from exsearch.config import ImagesConfig


@dsl.component(base_image=ImagesConfig().tools, install_kfp_package=False)
def deploy(
    settings: str,
    root: str,
    champion: dsl.Output[dsl.Model],  # type: ignore[type-arg]
) -> None:
    """Write the champion's record, then point the InferenceService at the model.

    Refuses when another model became champion since this run began. A laptop run has no
    InferenceService (`cluster.deploy.name` is empty) and only writes the record. The run of a
    SearchAgent (`cluster.deploy.agent`) hands the model over to it.
    """
    from exsearch.components.entry import point, running
    from exsearch.em.champion import promote
    from exsearch.kube.deploy import hand_over, serve
    from exsearch.storage import read_json

    with running(settings, "deploy") as run:
        summary = read_json(run.steps.folder.path("summary.json"))
        new = promote(root, run.settings, summary)
        run.voice.note(f"champion: {new.model} ({new.reason})")
        cluster = run.settings.cluster
        if cluster.deploy.agent:
            hand_over(new, cluster, run.voice.note)
        else:
            serve(new, cluster, run.voice.note)
        point(champion, new.model, digest=new.digest, run=new.run, **new.metrics)
