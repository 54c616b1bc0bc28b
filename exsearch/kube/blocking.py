"""From code that blocks to code that awaits, and signals to cancellation."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import threading
from collections.abc import Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from types import FrameType
from typing import Any, TypeVar

T = TypeVar("T")


def finish(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end, from wherever: inside of another event loop, too.

    Ctrl-C and SIGTERM cancel it; its own cleaning up is waited for.

    Raises:
        KeyboardInterrupt: there was such a signal.
        Whatever the coroutine raised.
    """
    begun = threading.Event()
    running: list[tuple[asyncio.AbstractEventLoop, asyncio.Task[Any]]] = []

    async def main() -> T:
        task = asyncio.current_task()
        assert task is not None
        running.append((asyncio.get_running_loop(), task))
        begun.set()
        return await work

    with _signals_raised(), ThreadPoolExecutor(1, "kube") as pool:
        future = pool.submit(lambda: asyncio.run(main()))
        try:
            return future.result()
        except KeyboardInterrupt:
            begun.wait()
            [(loop, task)] = running
            with contextlib.suppress(RuntimeError):  # the loop has just been closed
                loop.call_soon_threadsafe(task.cancel)
            raise  # once the thread has ended


@contextlib.contextmanager
def _signals_raised() -> Iterator[None]:
    """SIGTERM and SIGINT raise KeyboardInterrupt meanwhile, in the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, _: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
