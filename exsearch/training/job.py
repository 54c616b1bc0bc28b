"""What a training run is told, and what it says when it is done.

Nothing here imports torch: a process that only plans or submits can use it.
The output folder of a run, on a disk or at a URL:

    job.json      what was asked for
    log.jsonl     one line per optimizer step
    state/        checkpoints to resume from, gone once the run is done
    checkpoint/   the trained model, a Hugging Face folder; appears whole
    curves.png    loss and learning rate
    result.json   `TrainingResult`; written last, so its presence means done
"""

from __future__ import annotations

from typing import Literal

from pydantic import ValidationError

from exsearch import mirror, storage
from exsearch.agent.model_files import model_digest
from exsearch.config import Section, TrainingConfig
from exsearch.errors import InputError
from exsearch.records import canonical_json


class TrainingJob(Section):
    """One weighted supervised run, for `sft` and `align` alike."""

    model: str
    """Folder or URL of the model to start from, in Hugging Face format."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Type of the saved weights and of the arithmetic; the weights in training are float32.

    ZeRO on a CPU computes in float32, and float16 exists on GPUs only."""
    max_tokens: int = 8192
    """Longest transcript; what becomes of a longer one is `settings.overlong`."""
    examples: str
    """JSON lines of `records.Example`."""
    output: str
    """Folder or URL for everything the run writes."""
    settings: TrainingConfig = TrainingConfig()
    """Optimisation settings."""
    seed: int = 0
    """Seeds the order of the examples and LoRA's start."""
    resume: bool = True
    """Go on from the newest whole checkpoint in the output folder, if the job is the same."""

    @property
    def checkpoint(self) -> str:
        """Where the trained model appears."""
        return storage.join(self.output, "checkpoint")

    def with_local_inputs(self) -> TrainingJob:
        """The same job, its model and examples at paths: what is at URLs is brought here.

        Raises:
            InputError: there is nothing at a URL.
            StorageError: it cannot be read.
        """
        return self.model_copy(
            update={"model": mirror.local(self.model), "examples": mirror.local(self.examples)}
        )

    def fingerprint(self) -> str:
        """Digest of all that decides the trained weights: settings, examples, model.

        How the work is spread over processes is left out: the loss does not depend on it.

        Raises:
            InputError: the model folder cannot be read.
            StorageError: the examples cannot be read.
        """
        spread = {"nproc", "report_to", "save_steps", "micro_tokens", "gradient_checkpointing"}
        asked = self.model_dump(
            mode="json",
            exclude={"model": True, "examples": True, "output": True, "resume": True}
            | {"settings": spread | {"zero_stage", "offload"}},
        )
        return storage.digest_bytes(
            canonical_json(asked).encode(),
            storage.digest_file(self.examples).encode(),
            model_digest(mirror.local(self.model)).encode(),
        )


class ExampleCounts(Section):
    """What became of the examples in the file."""

    used: int = 0
    """Examples trained on."""
    dropped: int = 0
    """Left out for being over `max_tokens`."""
    cut: int = 0
    """Used, but only their first `max_tokens` tokens."""
    zero_weight: int = 0
    """Left out for their weight of 0."""
    empty: int = 0
    """Left out for having no token the agent wrote."""


class TrainingResult(Section):
    """What a finished run gave."""

    checkpoint: str
    """Folder of the trained model."""
    fingerprint: str
    """`TrainingJob.fingerprint` of the job that made it."""
    steps: int
    """Optimizer steps."""
    examples: ExampleCounts
    """What became of the examples."""
    loss_first: float
    """Weighted negative log-likelihood per agent token in the first step, in nats."""
    loss_last: float
    """The same in the last step."""
    tokens: int
    """Tokens read in all steps and ranks, without padding."""
    seconds: float
    """Time spent in optimizer steps, over all resumptions."""


def read_job(path: str) -> TrainingJob:
    """Read a job file.

    Raises:
        InputError: it is not a `TrainingJob`.
        StorageError: it cannot be read.
    """
    try:
        return TrainingJob.model_validate_json(storage.read_text(path))
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise InputError(f"{path} is not a training job: {field}: {first['msg']}") from None


def finished(job: TrainingJob, fingerprint: str) -> TrainingResult | None:
    """The result of this very job, if it is already there."""
    path = storage.join(job.output, "result.json")
    if not storage.exists(path) or not storage.exists(job.checkpoint):
        return None
    try:
        result = TrainingResult.model_validate_json(storage.read_text(path))
    except ValidationError:
        return None  # written by another version: train again
    return result if result.fingerprint == fingerprint else None
