"""When the rounds end: a rule over what the rounds so far have left behind. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from exsearch.em.layout import iteration_name
from exsearch.em.mstep import NOTHING_REACHED


def reason_to_stop(
    outputs: Callable[[str], Mapping[str, Any]], number: int, patience: int, metric: str
) -> str | None:
    """Why round `number` is not to be run; None where it is.

    Args:
        outputs: what a finished step of the run gave; empty for any other.
        patience: stop after so many rounds without a gain of `metric` on the dev questions
            over the best before; 0: never.
    """
    best, without_gain = -1.0, 0
    for earlier in range(1, number):
        name = iteration_name(earlier)
        if outputs(f"{name}/weigh").get("reached") is False:
            return f"round {earlier} ended it: {NOTHING_REACHED}"
        score = outputs(f"{name}/dev").get(metric, -1.0)
        without_gain = 0 if score > best else without_gain + 1
        best = max(best, score)
        if patience and without_gain >= patience:
            return f"no gain on the dev questions in {without_gain} rounds up to round {earlier}"
    return None
