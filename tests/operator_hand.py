"""The operator's reconciler, turned by hand."""

from __future__ import annotations

import time

from exsearch.operator.look import Outcome
from exsearch.operator.reconcile import Reconciler


class Hand:
    """The reconciler, turned by hand: a look happens when a test says so."""

    def __init__(self, reconciler: Reconciler, namespace: str) -> None:
        self.reconciler = reconciler
        self.namespace = namespace
        self.later = 0.0
        """Seconds by which the clock is ahead."""
        reconciler.means.clock = lambda: time.time() + self.later

    def restart(self) -> None:
        """As after a restart of the operator: nothing is remembered."""
        self.reconciler._memories.clear()

    async def look(self, name: str = "bot") -> Outcome:
        return await self.reconciler.reconcile(self.namespace, name)

    async def settle(self, name: str = "bot", most: int = 8) -> list[str]:
        """Look until nothing is left to do; all that was done."""
        done: list[str] = []
        for _ in range(most):
            outcome = await self.look(name)
            done += outcome.actions
            if not outcome.actions:
                return done
        raise AssertionError(f"it never settles: {done}")
