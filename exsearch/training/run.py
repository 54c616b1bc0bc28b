"""A training run inside its own process, one of possibly many."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import torch
import torch.distributed
from transformers import TrainingArguments

from exsearch import storage
from exsearch.training import journal, state, weights
from exsearch.training.curves import draw
from exsearch.training.dataset import Row, check_vocabulary, read_rows
from exsearch.training.deepspeed import deepspeed_config
from exsearch.training.job import ExampleCounts, TrainingJob, TrainingResult, finished
from exsearch.training.model import load_model, merge_lora, prepare, publish
from exsearch.training.trainer import StepDataset, WeightedTrainer


def run(job: TrainingJob) -> TrainingResult:
    """Train, resuming where a killed run of the same job left off.

    Called in every process of the run; the first one writes. The result of a finished
    run of the same job is returned as it is.

    Raises:
        InputError: the model or the examples cannot be used.
        StorageError: the disk is too small, full or not writable.
        ExSearchError: the loss became infinite.
    """
    fingerprint = job.fingerprint()
    done = finished(job, fingerprint)
    if done is not None:
        return done
    source = weights.resolve(job.model)
    parameters = weights.inspect(source).parameters
    itemsize = getattr(torch, job.dtype).itemsize
    storage.require_space(job.output, state.bytes_needed(parameters, itemsize), "training")
    rows, counts = read_rows(job)

    clip_scale = sum(len(row.targets) for row in rows) / len(rows)
    arguments = make_arguments(job, clip_scale)
    folder = state_folder(job)
    if arguments.process_index == 0:
        owner = f"{fingerprint} {job.settings.zero_stage} {arguments.world_size}"
        state.prepare(folder, owner, resume=job.resume)
    _wait()
    checkpoint = state.newest(folder)
    trainer = make_trainer(job, source, rows, clip_scale, arguments, state.steps_of(checkpoint))
    if trainer.journal is not None:
        journal.emit(
            "start",
            step=state.steps_of(checkpoint),
            total=len(trainer.steps),
            examples=counts.model_dump(),
        )
    trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    return _finish(job, fingerprint, counts, source, trainer)


def state_folder(job: TrainingJob) -> Path:
    """Where the checkpoints to resume from are."""
    return Path(job.output) / "state"


def make_arguments(job: TrainingJob, clip_scale: float) -> TrainingArguments:
    """The Trainer's arguments; making them joins the process group."""
    settings = job.settings
    cuda = torch.cuda.is_available()
    clip = settings.max_grad_norm * clip_scale
    zero = None
    if settings.zero_stage != 0:
        zero = deepspeed_config(
            settings.zero_stage,
            cuda=cuda,
            dtype=job.dtype,
            clip=clip,
            offload=settings.offload,
        )
    return TrainingArguments(
        output_dir=str(state_folder(job)),
        per_device_train_batch_size=1,
        num_train_epochs=1,
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        max_grad_norm=clip,
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_strategy="steps",
        save_steps=settings.save_steps,
        report_to=list(settings.report_to) or "none",
        seed=job.seed,
        use_cpu=not cuda,
        bf16=cuda and job.dtype == "bfloat16",
        fp16=cuda and job.dtype == "float16",
        optim="adamw_torch_fused",
        disable_tqdm=True,
        dataloader_pin_memory=cuda,
        remove_unused_columns=False,
        average_tokens_across_devices=False,
        ddp_backend="gloo" if "RANK" in os.environ and not cuda else None,
        ddp_find_unused_parameters=False,
        deepspeed=zero,
    )


def make_trainer(
    job: TrainingJob,
    source: Path,
    rows: list[Row],
    clip_scale: float,
    arguments: TrainingArguments,
    done: int,
) -> WeightedTrainer:
    """Load the model and lay out the steps.

    Args:
        done: optimizer steps that a checkpoint has already.
    """
    cuda = torch.cuda.is_available()
    # Without DeepSpeed the trained weights stay float32 and autocast lowers the
    # arithmetic; DeepSpeed keeps float32 masters of its own.
    lowered = cuda and job.settings.zero_stage != 0
    model = load_model(source, getattr(torch, job.dtype) if lowered else torch.float32)
    check_vocabulary(rows, model.config.get_text_config().vocab_size)
    dataset = StepDataset(
        rows, job.settings, job.seed, arguments.process_index, arguments.world_size
    )
    first = arguments.process_index == 0
    return WeightedTrainer(
        prepare(model, job.settings, job.seed),
        arguments,
        dataset,
        job.settings,
        clip_scale,
        journal.Journal(Path(job.output) / "log.jsonl", done) if first else None,
    )


def _finish(
    job: TrainingJob,
    fingerprint: str,
    counts: ExampleCounts,
    source: Path,
    trainer: WeightedTrainer,
) -> TrainingResult:
    whole = trainer.whole_state()
    log = trainer.journal
    if log is None:
        _wait()
        return TrainingResult.model_validate_json(
            storage.read_text(storage.join(job.output, "result.json"))
        )
    publish(trainer.base, merge_lora(whole), source, Path(job.checkpoint), job.dtype)
    draw(log.records, Path(job.output) / "curves.png")
    result = TrainingResult(
        checkpoint=job.checkpoint,
        fingerprint=fingerprint,
        steps=len(log.records),
        examples=counts,
        loss_first=log.records[0].loss_per_token,
        loss_last=log.records[-1].loss_per_token,
        tokens=sum(record.tokens for record in log.records),
        seconds=round(sum(record.seconds for record in log.records), 3),
    )
    storage.write_json(storage.join(job.output, "result.json"), result.model_dump())
    shutil.rmtree(state_folder(job), ignore_errors=True)
    _wait()
    return result


def _wait() -> None:
    if torch.distributed.is_initialized():
        torch.distributed.barrier()
