"""`exsearch demo`: the whole loop on generated data, with models that come as packages."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from exsearch.cli.common import ConfigOption, JsonOption, SetOption, console, settings

if TYPE_CHECKING:
    from exsearch.config import RunConfig


class Size(NamedTuple):
    """How many questions the demo takes."""

    train: int
    """Of each round."""
    test: int


@dataclass(frozen=True)
class Work:
    """The demo's work in 10⁹ operations: a step's seconds × the machine's speed, two rounds.

    Not all of the peak is reached, and not the same share in both arithmetics. bfloat16 is
    from the README's run; float32 from dev runs of smaller M-steps, scaled.
    """

    once: float
    """Warm-up training."""
    per_train: float
    """One training question: K samples and its part of the M-step, in both rounds."""
    per_test: float
    """One test question, answered by the base model, the warm-up and both rounds."""

    def minutes(self, size: Size, gflops: float) -> float:
        work = self.once + self.per_train * size.train + self.per_test * size.test
        return FIXED_MINUTES + work / gflops / 60


WORK = {
    "float32": Work(once=26_600, per_train=2_250, per_test=550),
    "bfloat16": Work(once=40_600, per_train=3_570, per_test=930),
}
FIXED_MINUTES = 2.5
"""What does not scale with arithmetic: process and engine starts, index, bookkeeping."""
SIZES = (Size(80, 128), Size(56, 96), Size(40, 64), Size(24, 48))
"""The largest that fits `LONGEST_MINUTES` is taken; the smallest where none does."""
LONGEST_MINUTES = 40.0
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
    in bfloat16 where that is measured to be faster, else in float32, and takes fewer
    questions on a slow machine.

    Example: `exsearch demo --set em.iterations=3`
    """
    overrides = overrides or []
    run = settings(config, overrides)
    if models_only:
        prepare(run)
        return
    overrides = [*fitting(run, overrides), *overrides]
    if speed_only:
        return
    prepare(run)
    from exsearch.cli import em

    em.main(config, overrides, as_json)


def fitting(run: RunConfig, overrides: list[str]) -> list[str]:
    """Measure the machine, choose arithmetic and size, say what the demo will take.

    A run that has begun goes on as it began.

    Args:
        overrides: the user's own, which are respected.

    Returns:
        The settings to add.
    """
    speeds = {dtype: matmul_gflops(dtype) for dtype in WORK}
    cores = len(os.sched_getaffinity(0))
    console.print(
        f"this machine: {speeds['float32']:.0f} GFLOPS in float32, {speeds['bfloat16']:.0f} in "
        f"bfloat16, on {cores} cores"
    )
    given = {override.partition("=")[0] for override in overrides}
    begun = _begun(run)
    if begun is not None:
        console.print(f"going on with the run in {run.run}", markup=False)
        chosen = _settings(begun.model.dtype, begun.data.train_limit, begun.data.eval_limit)
    else:
        dtype = _arithmetic(speeds) if "model.dtype" not in given else run.model.dtype
        size, minutes = _size(dtype, speeds)
        chosen = _settings(dtype, *size)
        console.print(
            f"computing in {dtype} with {size.train} training questions a round and {size.test} "
            f"test questions; expect about {minutes:.0f} minutes"
        )
    return [f"{name}={value}" for name, value in chosen.items() if name not in given]


def _settings(dtype: str, train: int | None, test: int | None) -> dict[str, object]:
    return {
        "model.dtype": dtype,
        "retrieval.dtype": dtype if dtype in WORK else "float32",
        "data.train_limit": "null" if train is None else train,
        "data.eval_limit": "null" if test is None else test,
    }


def _arithmetic(speeds: dict[str, float]) -> str:
    return "bfloat16" if speeds["bfloat16"] > WORTH_IT * speeds["float32"] else "float32"


def _size(dtype: str, speeds: dict[str, float]) -> tuple[Size, float]:
    """The largest size that fits, and its minutes."""
    work, speed = WORK.get(dtype, WORK["float32"]), speeds.get(dtype, speeds["float32"])
    forecasts = [(size, work.minutes(size, speed)) for size in SIZES]
    return next((f for f in forecasts if f[1] <= LONGEST_MINUTES), forecasts[-1])


def _begun(run: RunConfig) -> RunConfig | None:
    """The settings of the run that is to be gone on with, if there is one."""
    from exsearch.config import load
    from exsearch.storage import exists, join

    before = join(run.run, "run.yaml")
    return load(before, []) if exists(before) else None


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
