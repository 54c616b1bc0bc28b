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
"""What does not scale with arithmetic: engine starts, index, bookkeeping."""
WORK_GFLOP = {"float32": 190_000.0, "bfloat16": 270_000.0}
"""Measured minutes × measured speed of the rest: the share of the peak that is reached, and so
this product, differs with the arithmetic."""
WORTH_IT = 1.5
"""bfloat16 is chosen where its products are so many times faster: the rest gains nothing."""
ENOUGH_SECONDS = 5.0
"""Processors without bfloat16 emulate it very slowly: no need to know how slowly."""


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
    measures the machine, says how long it will take, and runs `exsearch em`. It computes
    in bfloat16 where that is measured to be faster, else in float32.

    Example: `exsearch demo --set em.iterations=3`
    """
    overrides = overrides or []
    run = settings(config, overrides)
    if models_only:
        prepare(run)
        return
    overrides = [*arithmetic(run, overrides), *overrides]
    if speed_only:
        return
    prepare(run)
    from exsearch.cli import em

    em.main(config, overrides, as_json)


def arithmetic(run: RunConfig, overrides: list[str]) -> list[str]:
    """Measure the machine, say what the demo will take, and choose what to compute in.

    A run that has begun goes on as it began; a `--set model.dtype=...` is respected.

    Returns:
        The settings to add.
    """
    speeds = {dtype: matmul_gflops(dtype) for dtype in ("float32", "bfloat16")}
    chosen = _begun(run)
    if any(override.startswith("model.dtype=") for override in overrides):
        chosen = run.model.dtype
    if chosen is None:
        faster = speeds["bfloat16"] > WORTH_IT * speeds["float32"]
        chosen = "bfloat16" if faster else "float32"
    minutes = FIXED_MINUTES + WORK_GFLOP[chosen] / speeds[chosen] / 60
    console.print(
        f"this machine: {speeds['float32']:.0f} GFLOPS in float32, {speeds['bfloat16']:.0f} in "
        f"bfloat16, on {len(os.sched_getaffinity(0))} cores; the demo computes in {chosen} and "
        f"should take about {minutes:.0f} minutes"
    )
    return [f"model.dtype={chosen}", f"retrieval.dtype={chosen}"]


def _begun(run: RunConfig) -> str | None:
    """The arithmetic of the run that is to be gone on with, if there is one."""
    from exsearch.config import load
    from exsearch.storage import exists, join

    before = join(run.run, "run.yaml")
    return load(before, []).model.dtype if exists(before) else None


def matmul_gflops(dtype: str, size: int = 2048, repeats: int = 8) -> float:
    """10⁹ operations per second of a square matrix product, the best of `repeats`."""
    import torch

    kind = getattr(torch, dtype)
    a, b = torch.randn(size, size).to(kind), torch.randn(size, size).to(kind)
    best = float("inf")
    began = time.perf_counter()
    for _ in range(repeats):
        started = time.perf_counter()
        torch.mm(a, b)
        best = min(best, time.perf_counter() - started)
        if time.perf_counter() - began > ENOUGH_SECONDS:
            break
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
