"""Every setting, in one tree, read from one YAML file.

`load(path, overrides)` reads the file, applies `--set path.to.key=value`, and
refuses a key it does not know, naming it. Nothing here imports torch: a
pipeline pod that only plans can read the same file.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from exsearch.config.cluster import (
    ClusterConfig,
    DeployTarget,
    ElasticConfig,
    ImagesConfig,
    Resources,
    StorageConfig,
    Toleration,
    TrainingPlacement,
)
from exsearch.config.method import (
    AgentConfig,
    DataConfig,
    EvaluationConfig,
    GateConfig,
    LoopConfig,
    ModelConfig,
    PolicyConfig,
    RetrievalConfig,
    SamplingConfig,
    TrainingConfig,
    WeighingConfig,
)
from exsearch.config.pipeline import PipelineConfig, ScheduleConfig
from exsearch.config.section import Section
from exsearch.config.serving import LearningConfig, ServingConfig
from exsearch.errors import InputError

__all__ = [
    "AgentConfig",
    "ClusterConfig",
    "DataConfig",
    "DeployTarget",
    "ElasticConfig",
    "EvaluationConfig",
    "GateConfig",
    "ImagesConfig",
    "LearningConfig",
    "LoopConfig",
    "ModelConfig",
    "PipelineConfig",
    "PolicyConfig",
    "Resources",
    "RetrievalConfig",
    "RunConfig",
    "SamplingConfig",
    "ScheduleConfig",
    "Section",
    "ServingConfig",
    "StorageConfig",
    "Toleration",
    "TrainingConfig",
    "TrainingPlacement",
    "WeighingConfig",
    "apply_override",
    "dump",
    "dump_line",
    "load",
    "parse",
]


class RunConfig(Section):
    """A whole run."""

    run: str = "runs/default"
    """Run folder or URL."""
    seed: int = 0
    """Seeds sampling, shuffling and bootstraps."""
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    retrieval: RetrievalConfig = RetrievalConfig()
    agent: AgentConfig = AgentConfig()
    policy: PolicyConfig = PolicyConfig()
    sampling: SamplingConfig = SamplingConfig()
    weighing: WeighingConfig = WeighingConfig()
    sft: TrainingConfig = TrainingConfig()
    align: TrainingConfig = TrainingConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    gate: GateConfig = GateConfig()
    em: LoopConfig = LoopConfig()
    pipeline: PipelineConfig = PipelineConfig()
    cluster: ClusterConfig = ClusterConfig()
    serving: ServingConfig = ServingConfig()


def load(path: str | Path | None = None, overrides: list[str] | None = None) -> RunConfig:
    """Read a run's settings.

    Args:
        path: YAML file, or None for the defaults.
        overrides: `path.to.key=value` pairs, values read as YAML, applied in order.

    Raises:
        InputError: the file is missing or no mapping, or a key or value is refused.
    """
    if path is None:
        return parse("", overrides)
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"cannot read the configuration {path}: {error.strerror}") from error
    return parse(text, overrides, str(path))


def parse(text: str, overrides: list[str] | None = None, source: str = "settings") -> RunConfig:
    """Settings from YAML text, as `load` reads them from a file.

    Args:
        source: where the text is from, for messages.
    """
    try:
        tree: Any = yaml.safe_load(text) or {}
    except yaml.YAMLError as error:
        raise InputError(f"{source} is not YAML: {error}") from error
    if not isinstance(tree, dict):
        raise InputError(f"{source} must hold a mapping of settings, not {type(tree).__name__}")
    for override in overrides or []:
        apply_override(tree, override)
    try:
        return RunConfig.model_validate(tree)
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise InputError(f"{source}: {problems}") from error


def apply_override(tree: dict[str, Any], override: str) -> None:
    """Set one `path.to.key=value` in a tree of settings; the value is read as YAML.

    Raises:
        InputError: it is of another form, or leads through a value.
    """
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise InputError(f"--set {override!r} is not of the form path.to.key=value")
    *parents, leaf = key.split(".")
    node = tree
    for name in parents:
        section = node.get(name, {})
        if not isinstance(section, dict):
            raise InputError(f"--set {override!r}: {name!r} is a value, not a section")
        # A copy: through a YAML alias two sections may be one and the same mapping.
        node[name] = dict(section)
        node = node[name]
    try:
        node[leaf] = yaml.safe_load(text) if text.strip() else ""
    except yaml.YAMLError as error:
        raise InputError(f"--set {override!r}: {text!r} is not a YAML value") from error


def dump(config: RunConfig) -> str:
    """The whole tree as YAML, defaults included: a run's `run.yaml`."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def dump_line(config: RunConfig) -> str:
    """The whole tree as one line of JSON, which is YAML too: for a parameter of a pipeline."""
    return json.dumps(config.model_dump(mode="json"), ensure_ascii=False)
