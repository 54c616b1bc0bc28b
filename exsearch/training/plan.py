"""All that can be known of a run before torch is loaded: whether it can begin, how long it is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from exsearch import storage
from exsearch.training import state, weights
from exsearch.training.batching import plan_steps
from exsearch.training.dataset import Row, read_rows
from exsearch.training.job import ExampleCounts, TrainingJob

_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


@dataclass(frozen=True)
class Plan:
    """A run that can begin."""

    source: Path
    """The model's local folder."""
    rows: list[Row]
    """The examples trained on."""
    counts: ExampleCounts
    """What became of the examples."""
    steps: int
    """Optimizer steps."""
    tokens: int
    """Tokens read in all of them, without padding."""
    disk: int
    """Bytes of disk the run needs at most."""

    @property
    def mean_targets(self) -> float:
        """Agent tokens per example: the loss is about so many times a per-token loss."""
        return sum(len(row.targets) for row in self.rows) / len(self.rows)


def plan(job: TrainingJob) -> Plan:
    """Look at the model, the examples and the disk.

    Raises:
        InputError: the model or the examples cannot be used.
        StorageError: the examples cannot be read, or the disk is too small.
    """
    source = weights.resolve(job.model)
    disk = state.bytes_needed(weights.inspect(source).parameters, _BYTES[job.dtype])
    storage.require_space(job.output, disk, "training")
    rows, counts = read_rows(job)
    steps = plan_steps(len(rows), job.settings.batch_size, job.settings.epochs, job.seed)
    return Plan(
        source=source,
        rows=rows,
        counts=counts,
        steps=len(steps),
        tokens=sum(len(rows[number]) for step in steps for number in step),
        disk=disk,
    )
