"""`exsearch demo`: the whole loop on generated data, with models that come as packages."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Annotated

import typer

from exsearch.cli.common import ConfigOption, JsonOption, SetOption, console, settings

if TYPE_CHECKING:
    from exsearch.config import RunConfig

FIXED_MINUTES = 4.0
"""What does not scale with arithmetic: engine start, index, bookkeeping."""
WORK_GFLOP = 220_000.0
"""Arithmetic of its episodes and training: a guess from one two-round run (22 min, 166 GFLOPS)."""


def main(
    config: ConfigOption = "examples/demo.yaml",
    overrides: SetOption = None,
    speed_only: Annotated[
        bool, typer.Option("--speed-only", help="Measure this machine and stop.")
    ] = False,
    models_only: Annotated[
        bool, typer.Option("--models-only", help="Make the models and the world, and stop.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Watch SmolLM2-135M become a search agent on this machine, without a GPU.

    Makes the models (from installed packages) and the demo world under `.cache/`,
    measures the machine, says how long it will take, and runs `exsearch em`.

    Example: `exsearch demo --set em.iterations=3`
    """
    run = settings(config, overrides)
    if models_only:
        prepare(run)
        return
    tell_forecast()
    if speed_only:
        return
    prepare(run)
    from exsearch.cli import em

    em.main(config, overrides, as_json)


def tell_forecast() -> None:
    """Measure float32 matrix multiplication and say what the demo will take at that speed."""
    speed = matmul_gflops()
    minutes = FIXED_MINUTES + WORK_GFLOP / speed / 60
    console.print(
        f"this machine: {speed:.0f} float32 GFLOPS on {len(os.sched_getaffinity(0))} cores; "
        f"the demo should take about {minutes:.0f} minutes"
    )


def matmul_gflops(size: int = 2048, repeats: int = 8) -> float:
    """10⁹ float32 operations per second of a square matrix product, the best of `repeats`."""
    import torch

    a, b = torch.randn(size, size), torch.randn(size, size)
    best = float("inf")
    for _ in range(repeats):
        started = time.perf_counter()
        torch.mm(a, b)
        best = min(best, time.perf_counter() - started)
    return 2 * size**3 / best / 1e9


def prepare(run: RunConfig) -> None:
    """Make what the demo's configuration names: both models and the world."""
    from pathlib import Path

    from exsearch.agent.assets import demo_model
    from exsearch.data.world import write_world
    from exsearch.retrieval.encoder import demo_checkpoint

    if not Path(run.data.corpus).exists():
        write_world(str(Path(run.data.corpus).parent), run.seed)
    demo_model(run.model.path)
    demo_checkpoint(run.retrieval.checkpoint)
