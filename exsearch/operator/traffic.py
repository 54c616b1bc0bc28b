"""Which model gets which share of the requests, and whether it is served. Pure."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from exsearch.errors import InputError
from exsearch.kube.deploy import storage_uri
from exsearch.kube.serving import read_service
from exsearch.operator.agent import Agent, Served
from exsearch.operator.kinds import Object
from exsearch.operator.promotion import Standing


def served_model(agent: Agent, standing: Standing, live: Object | None) -> Served:
    """The model to serve, and its share of the requests."""
    candidate, champion, keeping = standing.candidate, standing.champion, agent.keeping
    if keeping.pinned:
        served = Served(keeping.pinned)
    elif candidate is not None and candidate.since:
        share = keeping.canary.percent if keeping.canary and agent.splits else None
        served = Served(candidate.model, candidate.digest, candidate.run, share)
    elif champion is not None:
        served = Served(champion.model, champion.digest, champion.run)
    else:
        served = Served(agent.run.model.path)
    return _gently(agent, served, live)


def _gently(agent: Agent, served: Served, live: Object | None) -> Served:
    """On the way back from a canary its predecessor, which still runs, takes all at once.

    Without a share Knative would give everything to the newest revision that is ready, which
    is the canary until the restored model has loaded.
    """
    if live is None or not agent.splits or served.share is not None:
        return served
    predictor = live["spec"]["predictor"]
    share = predictor.get("canaryTrafficPercent")
    if share is None:
        return served
    uri = storage_uri(served.model, agent.run.cluster.storage)
    if predictor["model"].get("storageUri") != uri or (share == 0 and not _settled(live)):
        return replace(served, share=0)
    return served


def _settled(service: Object) -> bool:
    """KServe has seen the service as it is, and its newest revision is ready."""
    status = service.get("status", {})
    generation = service["metadata"].get("generation")
    newest = status.get("components", {}).get("predictor", {})
    return (
        status.get("observedGeneration", generation) == generation
        and read_service(service).ready
        and newest.get("latestReadyRevision") == newest.get("latestCreatedRevision")
    )


def unready_since(service: Object | None) -> float | None:
    """Since when KServe says that the service is not ready, in seconds since the epoch; None:
    it is, or nobody says since when."""
    for condition in (service or {}).get("status", {}).get("conditions", []):
        if condition["type"] == "Ready" and condition["status"] != "True":
            since = condition.get("lastTransitionTime")
            return datetime.fromisoformat(since).timestamp() if since else None
    return None


def taken_up(agent: Agent, service: Object | None, model: str) -> bool:
    """Whether KServe has been told to serve a model, and says that it does."""
    if service is None or not _settled(service):
        return False
    try:
        uri = storage_uri(model, agent.run.cluster.storage)
    except InputError:
        return False
    return service["spec"]["predictor"]["model"].get("storageUri") == uri
