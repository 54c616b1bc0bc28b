"""transformers' Trainer, taught the global-batch loss.

**One batch is one optimizer step.** The Trainer accumulates a fixed number of batches
per step and weighs them alike. Ours are cut by length: their number differs from step
to step, and their shares of the loss differ too. So the data loader hands over a whole
step, as the list of this rank's micro-batches, with `gradient_accumulation_steps` at 1,
and `training_step` runs through the list. The Trainer's own rules for dividing by
accumulation steps or item counts then have nothing to divide, and its step counter, its
schedule, its logging and its skipping of done batches on resume are right as they are.

**Sums over ranks.** DDP and DeepSpeed average gradients over the ranks. The loss of a
rank is therefore multiplied by their number: the average becomes the sum Σ share · NLL
over all ranks. Gradients travel between ranks once a step under DDP; ZeRO reduces them
in every backward pass, and is told which pass is the step's last.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import DistributedType
from torch import nn
from torch.utils.data import DataLoader, Dataset
from transformers import (
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from exsearch.config import TrainingConfig
from exsearch.errors import ExSearchError
from exsearch.mirror import Mirror
from exsearch.training import state
from exsearch.training.batching import deal, plan_steps
from exsearch.training.dataset import Row
from exsearch.training.journal import Journal, StepRecord
from exsearch.training.loss import MicroBatch, collate, micro_loss
from exsearch.training.model import State, base_of
from exsearch.training.schedule import learning_rate_share


@dataclass(frozen=True)
class StepFacts:
    """What a step's log line needs, known before it is taken."""

    weight: float
    """Σ w_i."""
    weighted_targets: float
    """Σ w_i × agent tokens of i."""
    tokens: int
    """Tokens read, without padding."""
    epoch: float
    """Passes over the rows once it is done."""


class StepDataset(Dataset[list[MicroBatch]]):
    """Item s is this rank's micro-batches of optimizer step s."""

    def __init__(
        self, rows: Sequence[Row], settings: TrainingConfig, seed: int, rank: int, world: int
    ) -> None:
        self.rows, self.rank, self.world = rows, rank, world
        self.micro_tokens = settings.micro_tokens
        self.steps = plan_steps(len(rows), settings.batch_size, settings.epochs, seed)

    def __len__(self) -> int:
        return len(self.steps)

    def __getitem__(self, step: int) -> list[MicroBatch]:
        rows = [self.rows[number] for number in self.steps[step]]
        total = sum(row.weight for row in rows)
        micros = deal([len(row) for row in rows], self.world, self.micro_tokens)[self.rank]
        return [collate([rows[place] for place in micro], total) for micro in micros]

    def facts(self, step: int) -> StepFacts:
        """What is known of step `step` (from 0) over all ranks."""
        rows = [self.rows[number] for number in self.steps[step]]
        return StepFacts(
            weight=sum(row.weight for row in rows),
            weighted_targets=sum(row.weight * len(row.targets) for row in rows),
            tokens=sum(len(row) for row in rows),
            epoch=sum(len(self.steps[number]) for number in range(step + 1)) / len(self.rows),
        )


class _NoFinalState(TrainerCallback):
    """The Trainer saves a last checkpoint to resume from; the trained model follows at once."""

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        if state.global_step >= state.max_steps:
            control.should_save = False


def _whole(items: list[list[MicroBatch]]) -> list[MicroBatch]:
    """A batch of one item is the item."""
    return items[0]


class WeightedTrainer(Trainer):
    """Trains on whole optimizer steps (see the module's docstring)."""

    def __init__(
        self,
        model: nn.Module,
        args: TrainingArguments,
        dataset: StepDataset,
        settings: TrainingConfig,
        clip_scale: float,
        journal: Journal | None,
        work: Mirror | None = None,
    ) -> None:
        """
        Args:
            work: the run's folder, of which `args.output_dir` is `state/`; default: the one
                above that.
            clip_scale: the factor between the loss and a per-token loss, by which
                `args.max_grad_norm` was multiplied.
            journal: where steps are noted; None on all ranks but the first.
        """
        self.steps = dataset
        self.settings, self.clip_scale, self.journal = settings, clip_scale, journal
        self.work, self.began = work or Mirror(Path(str(args.output_dir)).parent), 0.0
        super().__init__(model=model, args=args, train_dataset=dataset, callbacks=[_NoFinalState()])
        self.remove_callback(PrinterCallback)
        self.base = base_of(model)
        self.head: Any = self.base.get_output_embeddings()

    def get_train_dataloader(self) -> DataLoader[list[MicroBatch]]:
        """Steps in order. Not dealt out by accelerate: each rank's items are its own already."""
        return DataLoader(self.steps, batch_size=1, shuffle=False, collate_fn=_whole)

    def get_batch_samples(
        self, epoch_iterator: Any, num_batches: int, device: torch.device
    ) -> tuple[list[list[MicroBatch]], None]:
        """The next step; there is nothing for the Trainer to count in it."""
        return [next(epoch_iterator) for _ in range(num_batches)], None

    def floating_point_ops(self, inputs: Any) -> int:
        """Not estimated: the Trainer's guess knows nothing of frozen layers."""
        return 0

    def create_scheduler(
        self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None
    ) -> torch.optim.lr_scheduler.LRScheduler:
        """Our schedule, which wastes no step on a rate of 0."""
        if self.lr_scheduler is None:
            ratio, kind = self.settings.warmup_ratio, self.settings.schedule
            chosen: Any = self.optimizer if optimizer is None else optimizer
            self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(
                chosen,
                lambda step: learning_rate_share(step, num_training_steps, ratio, kind),
            )
            self._created_lr_scheduler = True
        return self.lr_scheduler

    def training_step(
        self, model: nn.Module, inputs: Any, num_items_in_batch: Any = None
    ) -> torch.Tensor:
        """Forward and backward through all micro-batches of a step.

        Args:
            inputs: list of `MicroBatch`, an item of `StepDataset`.

        Returns:
            The number of ranks × this rank's part of the loss, a scalar: the mean over the
            ranks, which the Trainer logs, is the loss over the global batch.
        """
        self.began = time.monotonic()
        model.train()
        total = torch.zeros((), device=self.args.device)
        for number, batch in enumerate(inputs, 1):
            last = number == len(inputs)
            self.accelerator.gradient_state._set_sync_gradients(last)
            with self._apart(model) if not last else contextlib.nullcontext():
                part = micro_loss(model, self.head, batch.to(self.args.device))
                part = part * self.accelerator.num_processes
                self.accelerator.backward(part)
            total += part.detach()
        return total

    def _apart(self, model: nn.Module) -> contextlib.AbstractContextManager[Any]:
        """Keep DDP's ranks from exchanging gradients; ZeRO decides for itself."""
        if self.accelerator.distributed_type == DistributedType.DEEPSPEED:
            return contextlib.nullcontext()
        return self.accelerator.no_sync(model)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Note a step, on the scale of a token, and pass it on to the trackers.

        Raises:
            ExSearchError: the loss is not finite any more.
        """
        if "loss" in logs:
            self._note(logs)
        super().log(logs, start_time)

    def _note(self, logs: dict[str, float]) -> None:
        step = self.state.global_step
        facts = self.steps.facts(step - 1)
        loss = logs["loss"]
        if not math.isfinite(loss):
            raise ExSearchError(
                f"the loss of step {step} is {loss}: lower the learning rate, or look for "
                "broken weights in the model or the examples"
            )
        self.state.epoch = facts.epoch
        record = StepRecord(
            step=step,
            epoch=facts.epoch,
            loss=loss,
            loss_per_token=loss * facts.weight / facts.weighted_targets,
            learning_rate=logs["learning_rate"],
            grad_norm=logs.get("grad_norm", 0.0) / self.clip_scale,
            tokens=facts.tokens,
            seconds=time.monotonic() - self.began,
        )
        logs["loss_per_token"] = record.loss_per_token
        logs["grad_norm"] = record.grad_norm
        if self.journal is not None:
            self.journal.add(record, self.state.max_steps)

    def whole_state(self) -> State:
        """All weights in this process's memory (under ZeRO gathered: call it in all ranks)."""
        whole: Any = self.accelerator.get_state_dict(self.model_wrapped)
        return whole

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Weights beside the optimizer state; DeepSpeed's own checkpoint has them already."""
        if not self.is_deepspeed_enabled:
            super().save_model(output_dir, _internal_call)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        super()._save_checkpoint(model, trial)
        self.accelerator.wait_for_everyone()
        name = f"state/checkpoint-{self.state.global_step}"
        if self.is_local_process_zero():
            self.work.send(name)  # at a URL: the files of all ranks of this node
        self.accelerator.wait_for_everyone()
        if self.is_world_process_zero() or (self.work.remote and self.is_local_process_zero()):
            state.mark(self.work.folder / name)
        if self.is_world_process_zero():
            self.work.send("log.jsonl", f"{name}/{state.MARK}")
            for older in {Path(file).parent for file in self.work.names("state/checkpoint-*/*")}:
                if older.as_posix() != name:
                    self.work.remove(older.as_posix())
        self.accelerator.wait_for_everyone()
