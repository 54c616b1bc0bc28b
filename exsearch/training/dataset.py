"""From examples to rows: the tokens to read, and the tokens to predict.

A row holds only what the loss needs. Attention looks backwards, so whatever follows
the agent's last token is left off, and the last token itself is predicted but not read.
"""

from __future__ import annotations

from dataclasses import dataclass

from exsearch.errors import InputError
from exsearch.records import Example, read_records
from exsearch.storage import open_text
from exsearch.training.job import ExampleCounts, TrainingJob


@dataclass(frozen=True, slots=True)
class Row:
    """One example, ready for a batch of rows."""

    id: str
    ids: tuple[int, ...]
    """Tokens read, shape [T]."""
    positions: tuple[int, ...]
    """Where in `ids` an agent token comes next, ascending, shape [N]."""
    targets: tuple[int, ...]
    """Those agent tokens, shape [N]."""
    weight: float
    """w_i, positive."""

    def __len__(self) -> int:
        return len(self.ids)


def make_row(example: Example, limit: int) -> Row | None:
    """The row of an example's first `limit` tokens; None where the agent wrote none of them.

    A first token has nothing before it to be predicted from and never counts.
    """
    ids = example.transcript.token_ids[:limit]
    mask = example.transcript.loss_mask[:limit]
    predicted = [place for place in range(1, len(ids)) if mask[place]]
    if not predicted:
        return None
    return Row(
        id=example.id,
        ids=tuple(ids[: predicted[-1]]),
        positions=tuple(place - 1 for place in predicted),
        targets=tuple(ids[place] for place in predicted),
        weight=example.weight,
    )


def read_rows(job: TrainingJob) -> tuple[list[Row], ExampleCounts]:
    """Read the job's examples and apply its rule for those over `max_tokens`.

    `refuse` stops the run at the first one; `drop` leaves it out; `cut` keeps its first
    `max_tokens` tokens, prompt included, and drops it if no agent token is among them.

    Raises:
        BadLine: a line is no example.
        InputError: an over-long example is refused, or nothing is left to train on.
        StorageError: the file cannot be read.
    """
    rows: list[Row] = []
    dropped = cut = zero = empty = 0
    with open_text(job.examples) as lines:
        for example in read_records(Example, lines, job.examples):
            if example.weight == 0.0:
                zero += 1
                continue
            row = make_row(example, job.max_tokens)
            length = sum(len(segment.ids) for segment in example.transcript.segments)
            if length > job.max_tokens:
                if job.settings.overlong == "refuse":
                    raise InputError(
                        f"{job.examples}: example {example.id} has {length} tokens, more than "
                        f"max_tokens={job.max_tokens}. Raise model.max_tokens, or set "
                        "overlong to drop or cut."
                    )
                if job.settings.overlong == "drop" or row is None:
                    dropped += 1
                    continue
                cut += 1
            if row is None:
                empty += 1
                continue
            rows.append(row)
    if not rows:
        raise InputError(
            f"{job.examples} leaves nothing to train on: {zero} examples have weight 0, "
            f"{dropped} are over max_tokens={job.max_tokens}, {empty} hold no agent token."
        )
    return rows, ExampleCounts(
        used=len(rows), dropped=dropped, cut=cut, zero_weight=zero, empty=empty
    )


def check_vocabulary(rows: list[Row], size: int) -> None:
    """Refuse token ids that the model's embedding matrix does not have.

    Raises:
        InputError: naming the first such example.
    """
    for row in rows:
        worst = max(max(row.ids), max(row.targets))
        if worst >= size:
            raise InputError(
                f"example {row.id} holds token id {worst}, but the model knows only {size}: "
                "the examples were made with another model's tokenizer"
            )
