"""Where a run keeps what. Every step finds its inputs and leaves its outputs here.

RUN/run.yaml  lineage.json  lineage/  summary.json  report.html  questions.jsonl
    index/
    base/eval/
    warmup/{demonstrations,examples}.jsonl  train/  eval/
    iter-01/{rollouts/shard-000-of-001.jsonl, weights.jsonl, estep.json, examples.jsonl}
    iter-01/{train/, eval/}
"""

from __future__ import annotations

from dataclasses import dataclass

from exsearch.storage import exists, join


@dataclass(frozen=True)
class RunFolder:
    """Paths below a run's root (local or URL)."""

    root: str

    def path(self, *parts: str) -> str:
        return join(self.root, *parts)

    def stage(self, name: str) -> Stage:
        """`base`, `warmup`, `champion` or an iteration's name."""
        return Stage(self.path(name))

    def iteration(self, number: int) -> Stage:
        return self.stage(iteration_name(number))

    def newest_before(self, number: int) -> str | None:
        """The newest stage before round `number` that has a checkpoint."""
        names = [iteration_name(n) for n in range(number - 1, 0, -1)]
        trained = (name for name in [*names, "warmup"] if exists(self.stage(name).checkpoint))
        return next(trained, None)

    def model_before(self, number: int, base: str) -> str:
        """The checkpoint that round `number` starts from: the newest one before it, else `base`."""
        newest = self.newest_before(number)
        return base if newest is None else self.stage(newest).checkpoint


def iteration_name(number: int) -> str:
    """`iter-01` for the first round."""
    return f"iter-{number:02d}"


@dataclass(frozen=True)
class Stage:
    """Paths of one stage's folder."""

    folder: str

    @property
    def rollouts(self) -> str:
        return join(self.folder, "rollouts")

    @property
    def weights(self) -> str:
        return join(self.folder, "weights.jsonl")

    @property
    def statistics(self) -> str:
        return join(self.folder, "estep.json")

    @property
    def examples(self) -> str:
        return join(self.folder, "examples.jsonl")

    @property
    def train(self) -> str:
        return join(self.folder, "train")

    @property
    def checkpoint(self) -> str:
        return join(self.train, "checkpoint")

    @property
    def evaluation(self) -> str:
        return join(self.folder, "eval")

    def shard(self, index: int, count: int) -> str:
        """The rollout file of shard `index` (from 0) of `count`."""
        return join(self.rollouts, f"shard-{index:03d}-of-{count:03d}.jsonl")
