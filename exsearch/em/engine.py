"""One engine at a time, handed from checkpoint to checkpoint."""

from __future__ import annotations

from collections.abc import Callable

from exsearch.agent.model_files import model_digest
from exsearch.agent.policies import Policy, open_policy
from exsearch.config import RunConfig


class Engine:
    """Opens the policy when first needed and hands it on while the model stays the same.

    Another model is loaded through the policy (vLLM starts anew); `release` stops it.
    """

    def __init__(self, config: RunConfig, tell: Callable[[str], None]) -> None:
        self._config, self._tell = config, tell
        self._policy: Policy | None = None

    async def use(self, model: str) -> Policy:
        """The policy, holding `model`.

        Raises:
            InputError: the model cannot be read.
            PolicyError: the engine does not start.
        """
        if self._policy is None:
            self._tell(f"starting the {self._config.policy.kind} engine")
            self._policy = await open_policy(self._config, model)
        elif self._config.policy.kind != "openai" and self._policy.digest != model_digest(model):
            await self._policy.load(model)
        return self._policy

    async def release(self) -> None:
        """Stop the engine: its memory is needed for training. The next `use` starts it anew."""
        if self._policy is not None:
            await self._policy.close()
            self._policy = None
