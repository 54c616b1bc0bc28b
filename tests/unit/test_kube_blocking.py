"""Awaiting from code that blocks, under signals and inside of other loops."""

from __future__ import annotations

import asyncio
import os
import signal
import threading

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
def test_a_signal_cancels_and_the_cleaning_up_is_waited_for(number: signal.Signals) -> None:
    before = signal.getsignal(number), threading.active_count()
    cleaned: list[str] = []

    async def work() -> None:
        asyncio.get_running_loop().call_later(0.1, os.kill, os.getpid(), number)
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            await asyncio.sleep(0.1)
            cleaned.append("job deleted")
            raise

    with pytest.raises(KeyboardInterrupt):
        finish(work())
    assert cleaned == ["job deleted"]
    assert (signal.getsignal(number), threading.active_count()) == before
