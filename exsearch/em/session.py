"""An engine and a retriever, open for the length of one step."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from exsearch.agent.episode import Setting
from exsearch.agent.policies import open_policy
from exsearch.config import RunConfig
from exsearch.retrieval.retriever import open_retriever
from exsearch.storage import exists, join, read_json


@asynccontextmanager
async def session(config: RunConfig, model: str) -> AsyncIterator[Setting]:
    """Open the retriever and the policy that the configuration names, and close them after.

    Raises:
        InputError: the model or the index cannot be used.
        PolicyError: the engine does not start.
        RetrieverError: the retriever service does not answer.
    """
    retriever = open_retriever(config)
    try:
        policy = await open_policy(config, model)
        try:
            yield Setting(policy, retriever, config.agent)
        finally:
            await policy.close()
    finally:
        await retriever.close()


def model_of_run(config: RunConfig) -> str:
    """The run's champion where its gate has named one, else the model it starts from."""
    summary = join(config.run, "summary.json")
    return str(read_json(summary)["champion"]) if exists(summary) else config.model.path
