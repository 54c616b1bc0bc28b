"""Steps depend on the seed alone; cutting them loses and repeats nothing."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exsearch.training.batching import deal, plan_steps

pytestmark = pytest.mark.unit

counts = st.integers(1, 60)
sizes = st.integers(1, 40)
lengths = st.lists(st.integers(1, 300), min_size=1, max_size=40)


@given(count=counts, size=sizes, epochs=st.integers(1, 4), seed=st.integers(0, 9))
def test_every_row_is_seen_once_an_epoch(count: int, size: int, epochs: int, seed: int) -> None:
    steps = plan_steps(count, size, epochs, seed)
    seen = Counter(row for step in steps for row in step)
    assert seen == dict.fromkeys(range(count), epochs)


@given(count=counts, size=sizes, epochs=st.floats(0.1, 3.0), seed=st.integers(0, 9))
def test_all_steps_but_the_last_are_full(count: int, size: int, epochs: float, seed: int) -> None:
    steps = plan_steps(count, size, epochs, seed)
    full = min(size, count)
    assert all(len(step) == full for step in steps[:-1])
    assert 1 <= len(steps[-1]) <= full


def test_the_order_is_the_seeds() -> None:
    assert plan_steps(50, 7, 2, seed=1) == plan_steps(50, 7, 2, seed=1)
    assert plan_steps(50, 7, 2, seed=1) != plan_steps(50, 7, 2, seed=2)


def test_epochs_are_shuffled_anew() -> None:
    first, second = plan_steps(30, 30, 2, seed=0)
    assert first != second


@given(lengths=lengths, world=st.integers(1, 5), limit=st.integers(1, 900))
def test_ranks_share_a_step_without_loss(lengths: list[int], world: int, limit: int) -> None:
    ranks = deal(lengths, world, limit)
    dealt = sorted(place for rank in ranks for micro in rank for place in micro)
    assert dealt == list(range(len(lengths)))


@given(lengths=lengths, world=st.integers(1, 5), limit=st.integers(1, 900))
def test_ranks_keep_in_step_and_within_the_limit(
    lengths: list[int], world: int, limit: int
) -> None:
    ranks = deal(lengths, world, limit)
    assert len(ranks) == world
    assert len({len(rank) for rank in ranks}) == 1
    for micro in (micro for rank in ranks for micro in rank if micro):
        padded = len(micro) * max(lengths[place] for place in micro)
        assert padded <= limit or len(micro) == 1
    # No rank has two rows more than another.
    shares = [sum(len(micro) for micro in rank) for rank in ranks]
    assert max(shares) - min(shares) <= 1


def test_rows_of_like_length_go_together() -> None:
    (rank,) = deal([10, 200, 12, 190, 11, 195], 1, 600)
    assert rank == [[1, 5, 3], [2, 4, 0]]
