"""Which examples make each optimizer step, and how a step is cut into forward passes.

Steps come first and depend on the seed alone: a step's examples, and so its loss, are
the same whatever the memory limit and the number of processes. Only then is a step
dealt to the ranks and cut into micro-batches of rows of similar length.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def plan_steps(count: int, batch_size: int, epochs: float, seed: int) -> list[list[int]]:
    """The examples of every optimizer step, as indices into the rows.

    One shuffle per epoch, laid end to end and cut every `batch_size`: only the very last
    step may be smaller. A set smaller than `batch_size` is one step an epoch.

    Args:
        count: number of rows, at least 1.
        epochs: passes over the rows; a fraction ends within a pass.
    """
    wanted = max(1, round(epochs * count))
    size = min(batch_size, count)
    generator = np.random.default_rng(seed)
    order: list[int] = []
    while len(order) < wanted:
        order.extend(generator.permutation(count).tolist())
    order = order[:wanted]
    return [order[start : start + size] for start in range(0, wanted, size)]


def deal(lengths: Sequence[int], world: int, micro_tokens: int) -> list[list[list[int]]]:
    """Share one step among the ranks and cut each share into micro-batches.

    Rows go longest first, to and fro over the ranks, so that all ranks get about equal
    work and their n-th micro-batches have about equal lengths. Every rank gets the same
    number of micro-batches, which collective operations need; missing ones are empty.

    Args:
        lengths: tokens of the step's rows, shape [rows].
        world: number of ranks.
        micro_tokens: largest rows × longest row of a micro-batch. A longer row is alone.

    Returns:
        Positions in `lengths`: [rank][micro-batch][row].
    """
    order = sorted(range(len(lengths)), key=lambda place: (-lengths[place], place))
    shares: list[list[int]] = [[] for _ in range(world)]
    for turn, place in enumerate(order):
        lap, seat = divmod(turn, world)
        shares[seat if lap % 2 == 0 else world - 1 - seat].append(place)
    cut = [_cut(share, lengths, micro_tokens) for share in shares]
    most = max(len(micros) for micros in cut)
    return [micros + [[]] * (most - len(micros)) for micros in cut]


def _cut(share: list[int], lengths: Sequence[int], micro_tokens: int) -> list[list[int]]:
    """Greedy: the first row of a micro-batch is its longest and sets its width."""
    micros: list[list[int]] = []
    width = 0
    for place in share:
        if micros and width * (len(micros[-1]) + 1) <= micro_tokens:
            micros[-1].append(place)
        else:
            micros.append([place])
            width = lengths[place]
    return micros
