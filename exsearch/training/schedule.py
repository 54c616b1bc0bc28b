"""The learning rate over a run, as a share of its peak."""

from __future__ import annotations

import math
from typing import Literal


def learning_rate_share(
    step: int,
    total: int,
    warmup_ratio: float,
    schedule: Literal["cosine", "linear", "constant"],
) -> float:
    """Share of the peak learning rate at `step` (from 0) of `total`.

    Rises in equal stairs over the first `warmup_ratio` of the steps, reaches 1 on the step
    after them, then decays towards 0 (cosine or linear) or stays. Neither the first nor
    the last step is wasted on a rate of 0, which matters where a run has ten steps.
    """
    warmup = int(warmup_ratio * total)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    if schedule == "constant":
        return 1.0
    progress = (step - warmup) / max(1, total - warmup)
    if schedule == "linear":
        return max(0.0, 1.0 - progress)
    return 0.5 * (1.0 + math.cos(math.pi * min(1.0, progress)))
