"""A `SearchAgent`, read: its settings, and how it is kept. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace

from exsearch.config import RunConfig
from exsearch.em.resolve import SHAPES_INDEX
from exsearch.kube.deploy import storage_uri
from exsearch.kube.serving import MODE, SPLITTING, STANDARD
from exsearch.operator.kinds import Object
from exsearch.operator.spec import KeepingConfig, read_spec
from exsearch.records import canonical_json
from exsearch.storage import digest_bytes, join


@dataclass(frozen=True)
class Served:
    """The model that the InferenceService is to serve."""

    model: str
    """Its folder or URL."""
    digest: str = ""
    """Empty: the base model, or a pinned one, which no run measured."""
    run: str = ""
    share: int | None = None
    """Percent of the requests that it gets; None: all of them."""


@dataclass(frozen=True)
class Agent:
    """A `SearchAgent`, read."""

    meta: Object
    """Its metadata: name, namespace, uid."""
    run: RunConfig
    """The settings of its runs, without what changes from run to run."""
    keeping: KeepingConfig
    mode: str = STANDARD
    """KServe's mode: what the service has, else what the agent's annotation asks for."""

    @property
    def name(self) -> str:
        return self.meta["name"]

    @property
    def namespace(self) -> str:
        return self.meta["namespace"]

    @property
    def splits(self) -> bool:
        """Its service can give a part of the requests to a new model."""
        return self.mode in SPLITTING

    def with_mode(self, mode: str) -> Agent:
        """The same agent, served in this mode."""
        return replace(self, mode=mode)


def read_agent(item: Object) -> Agent:
    """An agent, from the object as the API has it.

    Raises:
        InputError: its spec is none, or the base model lies where no pod can mount it.
    """
    meta = item["metadata"]
    run, keeping = read_spec(meta["name"], meta["namespace"], item.get("spec", {}))
    asked = meta.get("annotations", {}).get(MODE, STANDARD)
    agent = Agent(meta, _own(run, item), keeping, asked)
    storage_uri(keeping.pinned or run.model.path, run.cluster.storage)
    return agent


def _own(run: RunConfig, item: Object) -> RunConfig:
    """The settings with what the operator decides where the spec is silent."""
    meta, asked = item["metadata"], item.get("spec", {})
    pipeline, retrieval, cluster = run.pipeline, run.retrieval, run.cluster
    if "name" not in asked.get("pipeline", {}):
        name = f"{meta['namespace']}-{meta['name']}"
        pipeline = pipeline.model_copy(update={"name": name})
    if not retrieval.index and not retrieval.url:
        # The pods that serve read the same settings as the runs, so the index needs a place
        # that both know; another corpus gets another one.
        made_of = {"corpus": run.data.corpus, **retrieval.model_dump(include=SHAPES_INDEX)}
        digest = digest_bytes(canonical_json(made_of).encode())
        index = join(cluster.storage.root, "indexes", digest, "index")
        retrieval = retrieval.model_copy(update={"index": index})
    deploy = cluster.deploy.model_copy(update={"name": "", "agent": meta["name"]})
    return run.model_copy(
        update={
            "pipeline": pipeline,
            "retrieval": retrieval,
            "cluster": cluster.model_copy(update={"deploy": deploy}),
        }
    )


def settings(agent: Agent, withdrawn: tuple[str, ...]) -> RunConfig:
    """The settings of the schedule and of `NAME-run`.

    Args:
        withdrawn: digests of models that no run may start from.
    """
    schedule = agent.run.pipeline.schedule
    enabled = schedule.enabled and not agent.keeping.suspend
    pipeline = agent.run.pipeline.model_copy(
        update={"schedule": schedule.model_copy(update={"enabled": enabled})}
    )
    deploy = agent.run.cluster.deploy.model_copy(update={"withdrawn": withdrawn})
    cluster = agent.run.cluster.model_copy(update={"deploy": deploy})
    return agent.run.model_copy(update={"pipeline": pipeline, "cluster": cluster})
