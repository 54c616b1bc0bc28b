"""What becomes of a pod: a script for one container, and how a container's run is carried out."""

from __future__ import annotations

import fnmatch
import signal
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kube_api.logs import Log

Pod = Mapping[str, Any]


@dataclass(frozen=True)
class Outcome:
    """What a scripted pod does.

    Args:
        log: lines it writes when it starts.
        exit_code: how it ends; None: it runs until it is told, killed or deleted.
        reason: of its end, `Completed` or `Error` by default (`OOMKilled`, …).
        seconds: how long it runs.
        waiting: why its container never starts (`ImagePullBackOff`, …); empty: it starts.
        unschedulable: the scheduler's message where no node takes it; empty: one does.
    """

    log: Sequence[str] = ()
    exit_code: int | None = 0
    reason: str = ""
    seconds: float = 0.2
    waiting: str = ""
    unschedulable: str = ""


Script = Callable[[Pod, int], Outcome]
"""A pod, and how many of its name came before, to its outcome."""


def script(outcomes: Mapping[str, Outcome | Iterable[Outcome]]) -> Script:
    """A script by pod name.

    Args:
        outcomes: patterns (`*-worker-?`) and what such pods do; of several outcomes, each pod of
            one name takes the next, and the last repeats. Other pods succeed at once.
    """
    lists = {
        pattern: [given] if isinstance(given, Outcome) else list(given)
        for pattern, given in outcomes.items()
    }

    def chosen(pod: Pod, earlier: int) -> Outcome:
        name = pod["metadata"]["name"]
        for pattern, listed in lists.items():
            if fnmatch.fnmatchcase(name, pattern):
                return listed[min(earlier, len(listed) - 1)]
        return Outcome()

    return chosen


class Execution(ABC):
    """One run of a container."""

    @abstractmethod
    def start(self, log: Log) -> None:
        """Begin, writing to a log."""

    @abstractmethod
    def wait(self, seconds: float) -> int | None:
        """The exit code, or None while it runs on after so many seconds."""

    @abstractmethod
    def kill(self, number: int) -> None:
        """Send a signal."""

    @property
    def reason(self) -> str:
        """Why it ended, where that is neither `Completed` nor `Error`."""
        return ""


class Scripted(Execution):
    """A run that only pretends."""

    def __init__(self, outcome: Outcome) -> None:
        self._outcome = outcome
        self._left = outcome.seconds
        self._code: int | None = None
        self._told = threading.Event()

    def start(self, log: Log) -> None:
        for line in self._outcome.log:
            log.write(line)

    def wait(self, seconds: float) -> int | None:
        forever = self._outcome.exit_code is None
        if self._told.wait(seconds if forever else min(seconds, self._left)):
            return self._code
        self._left = max(0.0, self._left - seconds)
        return None if self._left else self._outcome.exit_code

    def finish(self, code: int) -> None:
        """End now with an exit code."""
        self._code = code
        self._told.set()

    def kill(self, number: int) -> None:
        self.finish(128 + number)

    @property
    def reason(self) -> str:
        return self._outcome.reason if self._code is None else ""


KILL = int(signal.SIGKILL)
TERM = int(signal.SIGTERM)
