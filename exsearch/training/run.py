"""A training run inside its own process, one of possibly many."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import torch
import torch.distributed
from transformers import TrainingArguments

from exsearch import storage
from exsearch.mirror import Mirror
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

    Called in every process of the run; the first one writes. Where the output is a URL, each
    node works in its scratch space, and its first process brings and sends the files.

    Args:
        fingerprint: `job.fingerprint()`, by which checkpoints and the result are known again.

    Raises:
        InputError: the model cannot be used.
        StorageError: the disk is full or not writable, or the store cannot be reached.
        ExSearchError: the loss became infinite.
    """
    work = Mirror(job.output, f"node {os.environ.get('GROUP_RANK', '0')}")
    arguments = make_arguments(job, plan, work)
    with work.opened() if arguments.local_process_index == 0 else contextlib.nullcontext():
        checkpoint = _begin(job, fingerprint, work, arguments)
        done = state.steps_of(checkpoint)
        first = arguments.process_index == 0
        log = journal.Journal(work.folder / "log.jsonl", done) if first else None
        trainer = make_trainer(job, plan, arguments, log, work)
        if first:
            journal.emit("start", step=done, total=plan.steps, examples=plan.counts.model_dump())
        trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
        whole = trainer.whole_state()
        if log is not None:
            target = work.folder / "checkpoint"
            publish(trainer.base, merge_lora(whole), plan.source, target, job.dtype)
            _conclude(job, plan, fingerprint, log, work)
        _wait()
    path = storage.join(job.output, "result.json")
    return TrainingResult.model_validate_json(storage.read_text(path))


def _begin(
    job: TrainingJob, fingerprint: str, work: Mirror, arguments: TrainingArguments
) -> Path | None:
    """Keep the checkpoints of this very job and no others; the newest is brought to each node."""
    if arguments.process_index == 0:
        owner = f"{fingerprint} {job.settings.zero_stage} {arguments.world_size}"
        kept = job.resume and work.read(f"state/{state.OWNER}") == owner
        if not kept:
            work.remove("state")
        state.prepare(work.folder / "state", owner, resume=kept)
        work.send(f"state/{state.OWNER}")
    _wait()
    if arguments.local_process_index == 0:
        whole = [Path(mark).parent for mark in work.names(f"state/checkpoint-*/{state.MARK}")]
        newest = max(whole, key=state.steps_of, default=None)
        if newest is not None:
            work.fetch("log.jsonl", newest.as_posix())
    _wait()
    return state.newest(work.folder / "state")


def make_arguments(job: TrainingJob, plan: Plan, work: Mirror) -> TrainingArguments:
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
        output_dir=str(work.folder / "state"),
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
    job: TrainingJob,
    plan: Plan,
    arguments: TrainingArguments,
    log: journal.Journal | None,
    work: Mirror,
) -> WeightedTrainer:
    """Load the model and lay out the steps.

    Args:
        log: where steps are noted; None on all ranks but the first.
        work: the run's folder.
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
        work,
    )


def _conclude(
    job: TrainingJob, plan: Plan, fingerprint: str, log: journal.Journal, work: Mirror
) -> None:
    """Everything that follows once the model is published; `result.json` last but for tidying."""
    draw(log.records, work.folder / "curves.png")
    work.replace("checkpoint", last="config.json")
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
    storage.write_json(work.folder / "result.json", result.model_dump())
    work.send("log.jsonl", "curves.png", "result.json")
    work.remove("state")


def _wait() -> None:
    if torch.distributed.is_initialized():
        torch.distributed.barrier()
