"""A training run inside its own process, one of possibly many."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import torch
import torch.distributed
from transformers import TrainingArguments

from exsearch import storage
from exsearch.training import journal, state
from exsearch.training.curves import draw
from exsearch.training.dataset import check_vocabulary
from exsearch.training.deepspeed import deepspeed_config
from exsearch.training.job import TrainingJob, TrainingResult
from exsearch.training.model import load_model, merge_lora, prepare, publish
from exsearch.training.plan import Plan
from exsearch.training.trainer import StepDataset, WeightedTrainer


def run(job: TrainingJob, plan: Plan, fingerprint: str) -> TrainingResult:
    """Train, resuming where a killed run of the same job left off.

    Called in every process of the run; the first one writes.

    Args:
        fingerprint: `job.fingerprint()`, by which checkpoints and the result are known again.

    Raises:
        InputError: the model cannot be used.
        StorageError: the disk is full or not writable.
        ExSearchError: the loss became infinite.
    """
    arguments = make_arguments(job, plan)
    folder = state_folder(job)
    first = arguments.process_index == 0
    if first:
        owner = f"{fingerprint} {job.settings.zero_stage} {arguments.world_size}"
        state.prepare(folder, owner, resume=job.resume)
    _wait()
    checkpoint = state.newest(folder)
    done = state.steps_of(checkpoint)
    log = journal.Journal(Path(job.output) / "log.jsonl", done) if first else None
    trainer = make_trainer(job, plan, arguments, log)
    if first:
        journal.emit("start", step=done, total=plan.steps, examples=plan.counts.model_dump())
    trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    whole = trainer.whole_state()
    if log is not None:
        publish(trainer.base, merge_lora(whole), plan.source, Path(job.checkpoint), job.dtype)
        _conclude(job, plan, fingerprint, log)
    _wait()
    path = storage.join(job.output, "result.json")
    return TrainingResult.model_validate_json(storage.read_text(path))


def state_folder(job: TrainingJob) -> Path:
    """Where the checkpoints to resume from are."""
    return Path(job.output) / "state"


def make_arguments(job: TrainingJob, plan: Plan) -> TrainingArguments:
    """The Trainer's arguments; making them joins the process group."""
    settings = job.settings
    cuda = torch.cuda.is_available()
    clip = settings.max_grad_norm * plan.mean_targets
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
        bf16=job.dtype == "bfloat16" and (cuda or zero is None),
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
    job: TrainingJob, plan: Plan, arguments: TrainingArguments, log: journal.Journal | None
) -> WeightedTrainer:
    """Load the model and lay out the steps.

    Args:
        log: where steps are noted; None on all ranks but the first.
    """
    # Without DeepSpeed the trained weights stay float32 and autocast lowers the
    # arithmetic; DeepSpeed keeps float32 masters of its own on a GPU, and on a CPU
    # computes in float32.
    lowered = torch.cuda.is_available() and job.settings.zero_stage != 0
    model = load_model(plan.source, getattr(torch, job.dtype) if lowered else torch.float32)
    check_vocabulary(plan.rows, model.config.get_text_config().vocab_size)
    rank, world = arguments.process_index, arguments.world_size
    return WeightedTrainer(
        prepare(model, job.settings, job.seed),
        arguments,
        StepDataset(plan.rows, job.settings, job.seed, rank, world),
        job.settings,
        plan.mean_targets,
        log,
    )


def _conclude(job: TrainingJob, plan: Plan, fingerprint: str, log: journal.Journal) -> None:
    """Everything that follows once the model is published; `result.json` last but for tidying."""
    draw(log.records, Path(job.output) / "curves.png")
    result = TrainingResult(
        checkpoint=job.checkpoint,
        fingerprint=fingerprint,
        steps=len(log.records),
        examples=plan.counts,
        loss_first=log.records[0].loss_per_token,
        loss_last=log.records[-1].loss_per_token,
        tokens=sum(record.tokens for record in log.records),
        seconds=round(sum(record.seconds for record in log.records), 3),
    )
    storage.write_json(storage.join(job.output, "result.json"), result.model_dump())
    shutil.rmtree(state_folder(job), ignore_errors=True)


def _wait() -> None:
    if torch.distributed.is_initialized():
        torch.distributed.barrier()
