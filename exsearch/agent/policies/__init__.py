"""Engines that write the agent's turns, behind one small protocol."""

from __future__ import annotations

from exsearch.agent.policies.base import Completion, Policy, PolicyStats, Sampling
from exsearch.config import RunConfig

__all__ = ["Completion", "Policy", "PolicyStats", "Sampling", "open_policy"]


async def open_policy(config: RunConfig, model: str) -> Policy:
    """Start the engine that `config.policy.kind` names, holding the model in `model`.

    Raises:
        InputError: the model cannot be read or the engine is not installed.
        PolicyError: the engine did not start.
    """
    match config.policy.kind:
        case "transformers":
            from exsearch.agent.policies.transformers import TransformersPolicy

            return TransformersPolicy(model, config.model)
        case "openai":
            from exsearch.agent.policies.openai import OpenAIPolicy

            return await OpenAIPolicy.connect(model, config.model, config.policy)
        case "vllm":
            from exsearch.agent.policies.vllm import VllmPolicy

            return VllmPolicy(model, config.model, config.policy, config.seed)
