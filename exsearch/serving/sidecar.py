"""The retriever beside the predictor on a laptop: a process of its own, started again when it
dies. On a cluster it is a container of the pod, and the kubelet does this."""

from __future__ import annotations

import asyncio
import ctypes
import logging
import signal
import socket
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from exsearch.config import RunConfig, dump

log = logging.getLogger(__name__)

PR_SET_PDEATHSIG = 1
"""prctl(2)."""
PAUSE = 1.0
"""Seconds before a dead retriever is started again."""
GRACE = 10.0
"""Seconds it gets to end."""


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@asynccontextmanager
async def sidecar(config: RunConfig) -> AsyncIterator[RunConfig]:
    """Run `exsearch retriever` over the run's index; gives settings that point at it."""
    port = free_port()
    with tempfile.NamedTemporaryFile("w", prefix="exsearch-", suffix=".yaml") as settings:
        settings.write(dump(config))
        settings.flush()
        keeper = asyncio.create_task(_keep(settings.name, port))
        try:
            retrieval = config.retrieval.model_copy(update={"url": f"http://127.0.0.1:{port}"})
            yield config.model_copy(update={"retrieval": retrieval})
        finally:
            keeper.cancel()
            await asyncio.wait([keeper])


async def _keep(settings: str, port: int) -> None:
    """Start the retriever, again and again, until cancelled."""
    folder = str(Path(sys.executable).parent / "exsearch")
    command = [folder, "retriever", "--config", settings, "--port", str(port)]
    while True:
        # A session of its own: Ctrl-C ends the predictor first, which still needs it to drain.
        process = await asyncio.create_subprocess_exec(
            *command, start_new_session=True, preexec_fn=_end_with_parent
        )
        try:
            code = await process.wait()
        except asyncio.CancelledError:
            await _end(process)
            raise
        log.error("the retriever ended", extra={"fields": {"code": code}})
        await asyncio.sleep(PAUSE)


def _end_with_parent() -> None:
    """Have the kernel send SIGTERM when the predictor is gone, even if it was killed (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


async def _end(process: asyncio.subprocess.Process) -> None:
    process.terminate()
    try:
        async with asyncio.timeout(GRACE):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()
