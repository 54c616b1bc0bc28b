"""The gradient is that of Σ w NLL / Σ w, however the batch is cut; only agent tokens count."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import LlamaConfig, LlamaForCausalLM

from exsearch.config import TrainingConfig
from exsearch.records import Example, Segment, Transcript
from exsearch.training.dataset import Row, make_row
from exsearch.training.loss import collate, micro_loss
from exsearch.training.trainer import StepDataset

pytestmark = pytest.mark.training

VOCABULARY = 120


def tiny() -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=VOCABULARY,
        tie_word_embeddings=True,
    )
    return LlamaForCausalLM(config)


@pytest.fixture(scope="module")
def model() -> Iterator[LlamaForCausalLM]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # so small a model only waits for its threads
    yield tiny()
    torch.set_num_threads(threads)


def examples(count: int, seed: int = 0) -> list[Example]:
    chance = random.Random(seed)

    def words(agent: bool) -> Segment:
        ids = tuple(chance.randrange(VOCABULARY) for _ in range(chance.randint(1, 12)))
        return Segment(role="assistant" if agent else "user", ids=ids, agent=agent)

    return [
        Example(
            id=f"e{number}",
            transcript=Transcript(
                segments=tuple(words(bool(n % 2)) for n in range(2 * chance.randint(1, 3)))
            ),
            weight=chance.choice([0.05, 0.3, 1.0]),
        )
        for number in range(count)
    ]


def rows_of(items: list[Example]) -> list[Row]:
    rows = [make_row(item, 1000) for item in items]
    return [row for row in rows if row is not None and row.weight > 0]


def gradient(model: LlamaForCausalLM, losses: Iterator[torch.Tensor]) -> torch.Tensor:
    model.zero_grad()
    for loss in losses:
        loss.backward()
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


def step_gradient(model: LlamaForCausalLM, rows: list[Row], world: int, limit: int):
    """What DDP's ranks add up to, over one step with all rows."""
    options = TrainingConfig(batch_size=len(rows), micro_tokens=limit, epochs=1)
    return gradient(
        model,
        (
            micro_loss(model, model.lm_head, batch)
            for rank in range(world)
            for batch in StepDataset(rows, options, 0, rank, world)[0]
        ),
    )


def reference_gradient(model: LlamaForCausalLM, items: list[Example]) -> torch.Tensor:
    """Straight from the definition: one transcript at a time, full logits, no padding."""

    def losses() -> Iterator[torch.Tensor]:
        total = sum(item.weight for item in items)
        for item in items:
            ids = torch.tensor(item.transcript.token_ids)
            mask = torch.tensor(item.transcript.loss_mask)[1:]
            logs = model(input_ids=ids[None]).logits[0, :-1].log_softmax(-1)
            nll = -logs.gather(1, ids[1:, None])[:, 0][mask].sum()
            yield item.weight * nll / total

    return gradient(model, losses())


@pytest.mark.parametrize("world", [1, 2, 3])
@pytest.mark.parametrize("limit", [1, 40, 90, 10_000])
def test_the_gradient_is_the_definitions(model: LlamaForCausalLM, world: int, limit: int) -> None:
    items = examples(13)
    expected = reference_gradient(model, items)
    found = step_gradient(model, rows_of(items), world, limit)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


def test_ranks_without_rows_add_nothing(model: LlamaForCausalLM) -> None:
    items = examples(2)
    found = step_gradient(model, rows_of(items), 5, 10)
    torch.testing.assert_close(found, reference_gradient(model, items), rtol=1e-4, atol=1e-6)


def test_weights_count_only_relative_to_each_other(model: LlamaForCausalLM) -> None:
    items = examples(6)
    scaled = [item.model_copy(update={"weight": 1000 * item.weight}) for item in items]
    torch.testing.assert_close(
        step_gradient(model, rows_of(items), 1, 80),
        step_gradient(model, rows_of(scaled), 1, 80),
        rtol=1e-4,
        atol=1e-6,
    )


def test_a_weight_of_zero_is_absence(model: LlamaForCausalLM) -> None:
    items = examples(6)
    silenced = [*items[:5], items[5].model_copy(update={"weight": 0.0})]
    torch.testing.assert_close(
        reference_gradient(model, silenced), step_gradient(model, rows_of(items[:5]), 1, 80)
    )
    assert len(rows_of(silenced)) == 5


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_predicting_anything_else_after_a_user_token_costs_nothing(
    model: LlamaForCausalLM, seed: int
) -> None:
    """Swap the whole output distribution at every place no agent token follows."""
    (item,) = examples(1, seed)
    row = make_row(item, 1000)
    if row is None:
        return
    batch = collate([row], row.weight)
    length = len(row)
    bonus = torch.randn(1, length, 32, generator=torch.Generator().manual_seed(seed))
    bonus[0, list(row.positions)] = 0.0

    def disturb(_, __, output: torch.Tensor) -> torch.Tensor:
        return output + 100 * bonus

    before = micro_loss(model, model.lm_head, batch)
    handle = model.model.norm.register_forward_hook(disturb)
    after = micro_loss(model, model.lm_head, batch)
    handle.remove()
    assert torch.equal(before, after)


def test_the_head_computes_no_other_logits(model: LlamaForCausalLM) -> None:
    rows = rows_of(examples(4))
    batch = collate(rows, 1.0)
    shapes: list[torch.Size] = []
    handle = model.lm_head.register_forward_hook(lambda _, __, out: shapes.append(out.shape))
    micro_loss(model, model.lm_head, batch)
    handle.remove()
    assert shapes == [torch.Size([1, sum(len(row.targets) for row in rows), VOCABULARY])]
