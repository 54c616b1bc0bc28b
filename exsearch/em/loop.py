"""The whole method: warm-up, then rounds of E-step and M-step, measured, gated, written down.

    exsearch em --config run.yaml

Each step is skipped when the run's lineage says that it finished with the same
inputs and settings, and resumes inside itself when it was cut short. So the same
command starts a run and goes on with one.
"""

from __future__ import annotations

from typing import Any

from exsearch.config import RunConfig
from exsearch.em.ledger import Voice
from exsearch.em.steps import Steps


class Loop:
    """One run in one process, from its configuration to its summary."""

    def __init__(self, config: RunConfig, voice: Voice) -> None:
        self.config, self.voice = config, voice
        self.steps = Steps(config, voice)

    async def run(self) -> dict[str, Any]:
        """Run everything that is not done yet; returns what `summary.json` holds.

        Raises:
            InputError: the settings, data or model cannot be used, or a step's
                recorded settings are not those of today.
            ExSearchError: a step failed; run again to go on from there.
        """
        try:
            return await self._run()
        finally:
            await self.steps.close()

    async def _run(self) -> dict[str, Any]:
        steps = self.steps
        steps.check()
        await steps.index()
        await steps.evaluate(steps.base)
        await steps.demonstrate()
        start = await steps.warm_up()
        for model in dict.fromkeys([start, steps.champion]):
            if model != steps.base:
                await steps.evaluate(model)
        for number in range(1, self.config.em.iterations + 1):
            reason = steps.reason_to_stop(number)
            if reason is not None:
                self.voice.note(f"stopping before round {number}: {reason}")
                break
            await self._round(number)
        return steps.conclude()

    async def _round(self, number: int) -> None:
        await self.steps.rollout(number)
        await self.steps.weigh(number)
        trained = await self.steps.align(number)
        if trained is not None:
            await self.steps.evaluate(trained)
            if self.config.em.patience:
                await self.steps.evaluate_on_dev(trained)
