"""Looks at agents, and what is remembered between two looks."""

from __future__ import annotations

from exsearch.kube.answers import Refused
from exsearch.operator.kinds import AGENTS
from exsearch.operator.look import Look, Means, Memory, Outcome


class Reconciler:
    """Looks at agents: at one agent once at a time, at different ones side by side."""

    def __init__(self, means: Means) -> None:
        self.means = means
        self._memories: dict[str, Memory] = {}

    async def reconcile(self, namespace: str, name: str) -> Outcome:
        """One look.

        Raises:
            ExSearchError: the Kubernetes API does not answer.
        """
        item = await self.means.api.get(AGENTS, namespace, name)
        if item is None:
            self.means.metrics.phases.pop((namespace, name), None)
            return Outcome()
        look = Look(self.means, item, self._memories.setdefault(item["metadata"]["uid"], Memory()))
        try:
            outcome = await look.run()
        except Refused as error:
            if error.status not in (404, 409):
                raise
            # Somebody else wrote it meanwhile, or it is gone: begin anew with what is there now.
            return Outcome((*look.actions, "changed meanwhile"), 0.1)
        phases = self.means.metrics.phases
        phases[namespace, name] = look.item.get("status", {}).get("phase", "Pending")
        if outcome.again is None:
            self._memories.pop(item["metadata"]["uid"], None)
            phases.pop((namespace, name), None)
        return outcome
