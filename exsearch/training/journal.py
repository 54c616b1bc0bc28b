"""What a run tells while it runs: a line per step on disk, events for whoever listens.

Events are JSON lines on standard output, so that a launcher can draw a bar and a
cluster's log can be searched:

    {"event": "start", "total": 40, "step": 0, "examples": {...}}
    {"event": "step", "step": 1, "total": 40, "loss": 0.81, ...}
    {"event": "done", "result": {...}}
    {"event": "error", "message": "...", "input": true}
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from exsearch import storage
from exsearch.config import Section


class StepRecord(Section):
    """One optimizer step, a line of `log.jsonl`."""

    step: int
    """Counted from 1."""
    epoch: float
    """Passes over the examples so far."""
    loss: float
    """Weighted mean NLL of a whole transcript: what is minimised, in nats."""
    loss_per_token: float
    """Weighted mean NLL of an agent token, in nats."""
    learning_rate: float
    """Rate this step was taken with."""
    grad_norm: float
    """Norm before clipping, on the scale of the loss per token."""
    tokens: int
    """Tokens read in this step by all ranks, without padding."""
    seconds: float
    """How long the step took."""


def emit(event: str, **facts: Any) -> None:
    """Write one event, in one piece."""
    sys.stdout.write(json.dumps({"event": event, **facts}, ensure_ascii=False) + "\n")
    sys.stdout.flush()


class Journal:
    """`log.jsonl`, begun or gone on with."""

    def __init__(self, path: Path, done: int) -> None:
        """Keep the records of the first `done` steps, which a resumed run starts after."""
        self.path = path
        self.records: list[StepRecord] = []
        if done and path.exists():
            with storage.explained(path, "read"):
                lines = path.read_text().splitlines()
            self.records = [StepRecord.model_validate_json(line) for line in lines[:done]]
        kept = "".join(record.model_dump_json() + "\n" for record in self.records)
        storage.write_atomic(path, kept)

    def add(self, record: StepRecord, total: int) -> None:
        """Append one step to the file and tell of it."""
        self.records.append(record)
        with storage.explained(self.path, "append to"), self.path.open("a") as file:
            file.write(record.model_dump_json() + "\n")
        spent = sum(item.seconds for item in self.records)
        read = sum(item.tokens for item in self.records)
        emit(
            "step",
            step=record.step,
            total=total,
            loss=record.loss_per_token,
            learning_rate=record.learning_rate,
            tokens_per_second=round(read / max(spent, 1e-9), 1),
            eta_seconds=round(spent / len(self.records) * (total - record.step), 1),
        )
