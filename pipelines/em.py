"""The shape of the E&M pipeline.

    prerequisites → index (shards, then one merge) → warm-up → T × [rollout shards → weigh →
    align → evaluate] → gate → deploy, if promoted; at the end, whatever happened, the report

Kubeflow has no loop whose rounds depend on each other, so the T rounds are laid out when the
pipeline is compiled. Each run reads the current champion when it starts.
"""

# A call of a component is a task: kfp supplies its output artefacts, loop items and tasks.
# pyright: reportCallIssue=false, reportArgumentType=false, reportAttributeAccessIssue=false
# No `from __future__ import annotations` here: kfp reads the annotations of `exsearch_em`.
from collections.abc import Sequence
from typing import Any

from kfp import dsl

from exsearch import config as settings
from exsearch.components.deploy.component import deploy
from exsearch.components.evaluate.component import evaluate
from exsearch.components.gate.component import gate
from exsearch.components.index.component import encode, merge
from exsearch.components.prerequisites.component import prerequisites
from exsearch.components.report.component import report
from exsearch.components.rollout.component import rollout
from exsearch.components.train.component import train
from exsearch.components.warmup_data.component import warmup_data
from exsearch.components.weigh.component import weigh
from exsearch.config import RunConfig, ScheduleConfig
from exsearch.em.layout import iteration_name
from exsearch.pipelines.placement import Role, place


def parameter(config: RunConfig) -> str:
    """The settings as the pipeline's `config` parameter: a run does not depend on its schedule."""
    pipeline = config.pipeline.model_copy(update={"schedule": ScheduleConfig()})
    return settings.dump_line(config.model_copy(update={"pipeline": pipeline}))


def build(config: RunConfig) -> Any:
    """The pipeline for these settings, as kfp compiles, submits and runs it.

    Its parameters: `config` (the settings as YAML, these by default; shape and placement stay
    as compiled), `root` (where runs, indexes and the champion's record are kept), `run` (a
    run's folder; empty: a new one under the root).
    """
    shape = _Shape(config)

    # A pipeline of its own, as kfp.local (2.17) hands a task's output to a ParallelFor of the
    # same level wrongly: as the loop's item.
    @dsl.pipeline(name="steps")
    def rounds(settings: str, corpus: str, root: str) -> None:
        shape.steps(settings, corpus, root)

    @dsl.pipeline(
        name=config.pipeline.name,
        description="ExSearch: sample, weigh, align, measure; promote only what is better.",
    )
    def exsearch_em(
        # One line: kfp puts defaults into a comment of the compiled file.
        config: str = parameter(config),
        root: str = config.cluster.storage.root,
        run: str = "",
    ) -> None:
        job = dsl.PIPELINE_JOB_NAME_PLACEHOLDER
        last = shape.placed(report(root=root, run=run, job=job), "report", "tools")
        with dsl.ExitHandler(last, name="run"):
            checked = prerequisites(config=config, root=root, run=run, job=job)
            shape.placed(checked, "prerequisites", "tools")
            resolved, corpus = checked.outputs["settings"], checked.outputs["index"]
            all_steps = rounds(settings=resolved, corpus=corpus, root=root)
            all_steps.set_caching_options(False)

    return exsearch_em


class _Shape:
    """Lays out the steps.

    `resolved` and `corpus` are the prerequisites' outputs: a run's settings, and the part of
    them that the index depends on.
    """

    def __init__(self, config: RunConfig) -> None:
        self.config = config
        limit = config.pipeline.parallelism
        self.limit = {"parallelism": limit} if limit else {}

    def placed(
        self, task: Any, name: str, role: Role, *, cached: bool = False, after: Sequence[Any] = ()
    ) -> Any:
        place(task, self.config, role, cached=cached)
        task.set_display_name(name)
        return task.after(*after) if after else task

    def steps(self, resolved: Any, corpus: Any, root: Any) -> None:
        em = self.config.em
        index = self.index(corpus)
        base = evaluate(settings=resolved, stage="base")
        self.placed(base, "evaluate base", "rollout", after=[index])
        data = warmup_data(settings=resolved)
        self.placed(data, "warm-up data", "index", after=[index])
        current = train(settings=resolved, number=0)
        self.placed(current, "warm-up", "train", after=[data])
        measured = [base, self.measure(resolved, "warmup", current)]
        for number in range(1, em.iterations + 1):
            # Early stopping needs the round before measured; else the two run side by side.
            ready = [current, measured[-1]] if em.patience else [current]
            current = self.round(resolved, number, ready)
            measured.append(self.measure(resolved, iteration_name(number), current))
        verdict = gate(settings=resolved)
        self.placed(verdict, "gate", "tools", after=measured)
        # `Output`, the name of a single return value, is what kfp.local finds in a condition.
        with dsl.If(verdict.outputs["Output"] == "promoted", name="promoted"):
            self.placed(deploy(settings=resolved, root=root), "deploy", "tools")

    def index(self, corpus: Any) -> Any:
        shards = self.config.pipeline.index_shards
        with dsl.ParallelFor(list(range(shards)), name="encode", **self.limit) as shard:
            part = encode(settings=corpus, shard=shard, shards=shards)
            self.placed(part, "encode passages", "index", cached=True)
        merged = merge(settings=corpus)
        return self.placed(merged, "index", "index", cached=True, after=[part])

    def round(self, resolved: Any, number: int, ready: Sequence[Any]) -> Any:
        shards, name = self.config.pipeline.rollout_shards, iteration_name(number)
        with dsl.ParallelFor(list(range(shards)), name=f"{name} rollout", **self.limit) as shard:
            part = rollout(settings=resolved, number=number, shard=shard, shards=shards)
            self.placed(part, f"{name} rollout", "rollout")
        part.after(*ready)
        weighed = weigh(settings=resolved, number=number)
        self.placed(weighed, f"{name} weigh", "tools", after=[part])
        trained = train(settings=resolved, number=number)
        return self.placed(trained, f"{name} align", "train", after=[weighed])

    def measure(self, resolved: Any, stage: str, trained: Any) -> Any:
        task = evaluate(settings=resolved, stage=stage)
        return self.placed(task, f"evaluate {stage}", "rollout", after=[trained])


def compile_to(config: RunConfig, path: str) -> None:
    """Write the pipeline as the YAML that Kubeflow Pipelines takes; equal settings, equal bytes.

    Raises:
        StorageError: the file cannot be written.
    """
    from kfp import compiler

    from exsearch.storage import explained

    with explained(path, "write"):
        compiler.Compiler().compile(build(config), path)
