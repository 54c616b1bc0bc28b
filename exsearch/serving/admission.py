"""Who may run, who waits, who is told to come back later."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from exsearch.serving.refusals import Refused

RECENT = 50
"""Episodes whose mean duration estimates how long the queue takes."""


class Place:
    """One question's place, from its arrival until it has been answered."""

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self._left = False

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[float]:
        """Wait for a free slot and hold it; gives the seconds that were waited."""
        came = time.monotonic()
        try:
            async with self._admission.slots:
                self._admission.running += 1
                began = time.monotonic()
                try:
                    yield began - came
                finally:
                    self._admission.running -= 1
                    self._admission.durations.append(time.monotonic() - began)
        finally:
            self.leave()

    def leave(self) -> None:
        """Give the place back; more than once does no harm."""
        if not self._left:
            self._left = True
            self._admission.held -= 1


class Admission:
    """A bounded number of episodes run; a bounded number of questions wait, in order.

    Attributes:
        held: places taken, running and waiting.
        running: episodes under way.
    """

    def __init__(self, concurrency: int, queue: int) -> None:
        self.concurrency, self.places = concurrency, concurrency + queue
        self.held = self.running = 0
        self.closing = False
        self.slots = asyncio.Semaphore(concurrency)
        self.durations: deque[float] = deque(maxlen=RECENT)

    @property
    def waiting(self) -> int:
        return self.held - self.running

    def take(self, count: int = 1) -> list[Place]:
        """Places for `count` questions, or for none of them.

        Raises:
            Refused: there are not so many, or the server is about to end.
        """
        if self.closing:
            raise Refused("closing", "this server is shutting down; ask again, another will answer")
        if self.held + count > self.places:
            raise Refused(
                "queue_full",
                f"{self.running} questions are being answered and {self.waiting} wait: "
                f"there is no place for {count} more; ask again later",
                retry_after=self._patience(count),
            )
        self.held += count
        return [Place(self) for _ in range(count)]

    def _patience(self, count: int) -> float:
        """Seconds until so many places are likely to be free, by recent durations."""
        mean = sum(self.durations) / len(self.durations) if self.durations else 1.0
        missing = self.held + count - self.places
        return mean * missing / self.concurrency
