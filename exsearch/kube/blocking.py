"""From code that blocks to code that awaits, and signals to cancellation."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import threading
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from types import FrameType
from typing import Any, Generic, TypeVar

T = TypeVar("T")


def finish(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end, from wherever: inside of another event loop, too.

    Ctrl-C and SIGTERM cancel it; its own cleaning up is waited for, and a second signal
    cancels that.

    Raises:
        KeyboardInterrupt: there was such a signal.
        Whatever the coroutine raised.
    """
    running = _Running(work)
    with _signals_to(running.cancel), ThreadPoolExecutor(1, "kube") as pool:
        future = pool.submit(lambda: asyncio.run(running.main()))
        # Nothing is raised into this thread meanwhile: wherever it is, the work is waited for.
        try:
            result = future.result()
        finally:
            if running.cancelled:
                raise KeyboardInterrupt
    return result


class _Running(Generic[T]):
    """A coroutine that another thread may cancel, before it has begun, too."""

    def __init__(self, work: Coroutine[Any, Any, T]) -> None:
        self._work = work
        self._task: asyncio.Task[Any] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self.cancelled = False

    async def main(self) -> T:
        self._loop, self._task = asyncio.get_running_loop(), asyncio.current_task()
        if self.cancelled and self._task:
            self._task.cancel()
        return await self._work

    def cancel(self) -> None:
        self.cancelled = True
        if self._loop and self._task:
            with contextlib.suppress(RuntimeError):  # the loop has just been closed
                self._loop.call_soon_threadsafe(self._task.cancel)


@contextlib.contextmanager
def _signals_to(act: Callable[[], None]) -> Iterator[None]:
    """SIGTERM and SIGINT call `act` meanwhile, if this is the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, _: FrameType | None) -> None:
        act()

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
