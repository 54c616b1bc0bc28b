"""Loss and learning rate over a run, as a picture."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from exsearch import storage
from exsearch.training.journal import StepRecord


def draw(records: Sequence[StepRecord], path: Path) -> None:
    """Write a PNG: loss per agent token above, learning rate below, over optimizer steps."""
    figure = Figure(figsize=(7, 5), layout="constrained")
    FigureCanvasAgg(figure)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    steps = [record.step for record in records]
    above.plot(steps, [record.loss_per_token for record in records], marker=".")
    above.set_ylabel("loss per agent token (nats)")
    above.grid(alpha=0.3)
    below.plot(steps, [record.learning_rate for record in records], color="tab:orange")
    below.set_ylabel("learning rate")
    below.set_xlabel("optimizer step")
    below.grid(alpha=0.3)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=120)
    storage.write_atomic(path, picture.getvalue())
