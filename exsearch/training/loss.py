"""The loss: Σ_i w_i NLL_i / Σ_i w_i over the global batch, at agent tokens only.

NLL_i sums −log p over the tokens that the agent wrote in example i, so the loss is the
weighted mean negative log-likelihood of a whole transcript, the objective of the M-step
(Shi et al., arXiv 2505.20128, with w from the E-step). i runs over all rows of an
optimizer step: all micro-batches of all ranks. The denominator is known from the plan
before the first forward pass, so every micro-batch can be divided by it on its own, and
what is left is a plain sum, which no cutting into parts changes.

The sum makes the loss grow with the transcript. AdamW does not see a constant factor;
gradient clipping does, so the trainer clips at `max_grad_norm` × the mean number of
agent tokens per example, one constant for the run, and `max_grad_norm` keeps the meaning
it has for per-token losses.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from exsearch.training.dataset import Row


@dataclass(frozen=True)
class MicroBatch:
    """The rows of one forward pass, padded on the right to the longest.

    No attention mask goes with it: under causal attention no real token looks at the
    padding behind it, and nothing is predicted from the padding itself.
    """

    input_ids: torch.Tensor
    """Tokens read, shape [B, T], padded with 0."""
    positions: torch.Tensor
    """Where agent tokens come next, as indices into the flattened [B·T], shape [N]."""
    targets: torch.Tensor
    """Those agent tokens, shape [N]."""
    shares: torch.Tensor
    """w_i / Σ w over the global batch, once per target, shape [N], float32."""

    def to(self, device: torch.device) -> MicroBatch:
        return MicroBatch(
            self.input_ids.to(device),
            self.positions.to(device),
            self.targets.to(device),
            self.shares.to(device),
        )


def collate(rows: Sequence[Row], total_weight: float) -> MicroBatch:
    """Pad rows into one micro-batch.

    No rows give one padding token whose prediction counts 0: the rank computes along with
    the others, as collective operations require, and adds nothing.

    Args:
        total_weight: Σ w over the global batch.
    """
    if not rows:
        rows = [Row(id="", ids=(0,), positions=(0,), targets=(0,), weight=0.0)]
    width = max(len(row) for row in rows)
    input_ids = torch.zeros(len(rows), width, dtype=torch.long)
    for number, row in enumerate(rows):
        input_ids[number, : len(row)] = torch.tensor(row.ids)
    return MicroBatch(
        input_ids=input_ids,
        positions=torch.tensor(
            [number * width + place for number, row in enumerate(rows) for place in row.positions]
        ),
        targets=torch.tensor([target for row in rows for target in row.targets]),
        shares=torch.tensor(
            [row.weight / total_weight for row in rows for _ in row.positions],
            dtype=torch.float32,
        ),
    )


@contextlib.contextmanager
def head_reads_only(head: nn.Module, positions: torch.Tensor) -> Iterator[None]:
    """While open, the output head sees the hidden states at `positions` and no others.

    The head's input shrinks from [B, T, H] to [1, N, H], so the logits are [1, N, V]. The
    model's own forward stays in charge, whatever it does around its head (scaling, soft
    caps, ZeRO-3's gathering of the head's weights).
    """

    def pick(_: nn.Module, arguments: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor]:
        return (arguments[0].flatten(0, 1).index_select(0, positions).unsqueeze(0),)

    handle = head.register_forward_pre_hook(pick)
    try:
        yield
    finally:
        handle.remove()


def micro_loss(model: nn.Module, head: nn.Module, batch: MicroBatch) -> torch.Tensor:
    """This micro-batch's part of the global loss: Σ share · NLL, a scalar.

    Args:
        model: maps token ids to an output with `logits`; may be wrapped for DDP or ZeRO.
        head: the module inside it that makes logits of hidden states.
    """
    with head_reads_only(head, batch.positions):
        logits = model(input_ids=batch.input_ids, use_cache=False).logits[0]
    losses = nn.functional.cross_entropy(logits.float(), batch.targets, reduction="none")
    return (losses * batch.shares).sum()
