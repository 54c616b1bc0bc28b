"""Awaiting from code that blocks, under signals and inside of other loops."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from exsearch.kube.blocking import finish

pytestmark = pytest.mark.unit


async def double(number: int) -> int:
    await asyncio.sleep(0)
    return 2 * number


def test_a_result_comes_back() -> None:
    assert finish(double(3)) == 6


async def test_also_inside_of_a_running_loop() -> None:
    assert finish(double(4)) == 8


def test_an_error_comes_back() -> None:
    async def fail() -> None:
        raise ValueError("told")

    with pytest.raises(ValueError, match="told"):
        finish(fail())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("seconds", [0.0, 0.1], ids=["at once", "later"])
def test_a_signal_cancels_and_the_cleaning_up_is_waited_for(
    number: signal.Signals, seconds: float
) -> None:
    before = signal.getsignal(number)
    cleaned: list[str] = []

    async def work() -> None:
        asyncio.get_running_loop().call_later(seconds, os.kill, os.getpid(), number)
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            await asyncio.sleep(0.1)
            cleaned.append("job deleted")
            raise

    with pytest.raises(KeyboardInterrupt):
        finish(work())
    assert cleaned == ["job deleted"]
    assert signal.getsignal(number) == before
    assert not [t for t in threading.enumerate() if t.name.startswith("kube")]


def test_a_signal_before_the_work_began_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[str] = []

    async def work() -> None:
        await asyncio.sleep(60)
        begun.append("slept")

    submit = ThreadPoolExecutor.submit

    def late(self: ThreadPoolExecutor, act: Callable[[], object]) -> object:
        os.kill(os.getpid(), signal.SIGTERM)
        return submit(self, act)

    monkeypatch.setattr(ThreadPoolExecutor, "submit", late)
    with pytest.raises(KeyboardInterrupt):
        finish(work())
    assert not begun
