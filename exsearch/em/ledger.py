"""What has been done in a run: each step once, and never mixed with other settings."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from exsearch import config as settings
from exsearch.agent.runner import Progress
from exsearch.config import RunConfig
from exsearch.em.layout import RunFolder
from exsearch.errors import InputError
from exsearch.records import canonical_json
from exsearch.storage import Lineage, digest_bytes, write_atomic


class Voice(Protocol):
    """How a run speaks to whoever watches it."""

    def step(self, title: str) -> None: ...
    def note(self, text: str) -> None: ...
    def progress(self, progress: Progress) -> None: ...


class Quiet:
    """A `Voice` that says nothing."""

    def step(self, title: str) -> None: ...
    def note(self, text: str) -> None: ...
    def progress(self, progress: Progress) -> None: ...


class Ledger:
    """The steps of one run that are done, with what they were made from."""

    def __init__(self, config: RunConfig, voice: Voice) -> None:
        self._config, self._voice = config, voice
        self._lineage = Lineage(config.run)

    async def once(
        self, step: str, inputs: dict[str, Any], work: Callable[[], Awaitable[dict[str, Any]]]
    ) -> dict[str, Any]:
        """Do a step unless it is done; returns its outputs.

        Args:
            inputs: all that the outcome depends on, as JSON values.
            work: does it; what it returns is kept as the step's outputs.

        Raises:
            InputError: the step was done from other inputs or under other settings.
        """
        fingerprint = digest_bytes(canonical_json(inputs).encode())
        if self._lineage.done(step, fingerprint):
            self._voice.note(f"{step}: done before")
            return self.outputs(step)
        if step in self._lineage.entries:
            raise InputError(
                f"step {step!r} of {self._config.run} was made with other inputs or settings; "
                f"use another run folder, or remove what it made and {self._lineage.path(step)}"
            )
        self.note_settings()
        self._voice.step(step)
        started = time.monotonic()
        outputs = await work()
        seconds = time.monotonic() - started
        self._lineage.record(step, fingerprint, seconds, inputs=inputs, outputs=outputs)
        return outputs

    def note_settings(self) -> None:
        """Write `run.yaml`: once a step has accepted the settings, never refused ones."""
        path = RunFolder(self._config.run).path("run.yaml")
        write_atomic(path, settings.dump(self._config))

    def outputs(self, step: str) -> dict[str, Any]:
        """What a finished step gave; empty for one that has not finished."""
        return dict(self._lineage.entries.get(step, {}).get("outputs", {}))

    def fingerprints(self, prefix: str) -> list[str]:
        """Of the finished steps whose names begin so, in the order of their names."""
        entries = self._lineage.entries
        return [entries[step]["fingerprint"] for step in sorted(entries) if step.startswith(prefix)]
