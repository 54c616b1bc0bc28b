"""What a SearchAgent's fields must be together, in CEL, with the words that a person reads.

The API server compiles the rules and refuses what breaks them. An absent field reads as absent
there, not as its default, and so does a null: rules about defaults name them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from exsearch.config import ElasticConfig, StorageConfig, TrainingPlacement

NAME_LENGTH = 40
"""Longest name of a SearchAgent: KServe and Knative append to it, and a name has 63 characters."""


@dataclass(frozen=True)
class Rule:
    """One rule of `x-kubernetes-validations`.

    Args:
        rule: CEL over `self` (and `oldSelf`: then only a change is checked).
        message: what must be, and what to do.
        field: the field at fault, relative to the rule's place; empty: that place.
        reason: the machine's word.
    """

    rule: str
    message: str
    field: str = ""
    reason: Literal["", "FieldValueRequired", "FieldValueForbidden"] = ""

    def schema(self) -> dict[str, str]:
        """As a CRD has it."""
        found = {"rule": self.rule, "message": self.message}
        found |= {"fieldPath": self.field} if self.field else {}
        return found | ({"reason": self.reason} if self.reason else {})


def _said(holder: str, path: str) -> str:
    """CEL: a field and all above it are there."""
    names = path.split(".")
    depths = range(1, len(names) + 1)
    return " && ".join(f"has({holder}.{'.'.join(names[:depth])})" for depth in depths)


def _or(holder: str, path: str, default: object) -> str:
    """CEL: a field's value, or its default where it is absent."""
    shown = f"'{default}'" if isinstance(default, str) else str(default)
    return f"({_said(holder, path)} ? {holder}.{path} : {shown})"


def _filled(path: str) -> str:
    return f"{_said('self', path)} && self.{path} != ''"


def _fixed(path: str, default: str) -> Rule:
    """A setting that is chosen once; leaving it out counts as choosing its default."""
    return Rule(
        f"{_or('self', path, default)} == {_or('oldSelf', path, default)}",
        f"{path} cannot be changed (its default is {default}): models, indexes and the champion's "
        "record are there. Make a new SearchAgent",
        f".{path}",
        "FieldValueForbidden",
    )


NAMED = Rule(
    f"size(self.metadata.name) <= {NAME_LENGTH} && "
    "self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",
    f"the name must have at most {NAME_LENGTH} characters: a letter, then lower-case letters, "
    "digits and '-'. An InferenceService and its pods are named after it",
    ".metadata.name",
)
"""Of the whole resource."""

_STORAGE, _ELASTIC, _PLACEMENT = StorageConfig(), ElasticConfig(), TrainingPlacement()
_ROOT = _or("self", "cluster.storage.root", _STORAGE.root)
_MIN, _MAX = ("min_nodes", _ELASTIC.min_nodes), ("max_nodes", _ELASTIC.max_nodes)

_QUANTITY = Rule(
    "self.matches('^[0-9]+([.][0-9]+)?(m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei)?$')",
    "must be a quantity as Kubernetes writes them, such as 500m, 4 or 16Gi",
)
_URL = Rule("self == '' || self.matches('^https?://')", "must be an http:// or https:// address")

_SPEC = (
    Rule(
        _filled("model.path"),
        "model.path must name the model to start from: a folder under cluster.storage.mount, or "
        "a URL",
        ".model.path",
        "FieldValueRequired",
    ),
    Rule(
        f"({_filled('data.corpus')}) || ({_filled('retrieval.url')}) || "
        f"({_filled('retrieval.index')})",
        "data.corpus must name the passages; only where retrieval.index has an index of them, or "
        "retrieval.url serves one, may it be left out",
        ".data.corpus",
        "FieldValueRequired",
    ),
    Rule(
        f"{_said('self', 'data.train')} && size(self.data.train) > 0",
        "data.train must name at least one question file: the E-step samples from it",
        ".data.train",
        "FieldValueRequired",
    ),
    Rule(
        f"{_said('self', 'data.test')} && size(self.data.test) > 0",
        "data.test must name at least one question file: the gate compares models on it",
        ".data.test",
        "FieldValueRequired",
    ),
    Rule(
        f"!has(self.pinned) || self.pinned == '' || self.pinned.contains('://') || "
        f"self.pinned.startsWith({_ROOT} + '/')",
        "pinned must be a URL, or a path under cluster.storage.root, where pods find the model",
        ".pinned",
    ),
    _fixed("cluster.storage.claim", _STORAGE.claim),
    _fixed("cluster.storage.root", _STORAGE.root),
    Rule(
        # Unset is NAMESPACE-NAME, which CEL cannot know: setting it later renames it too.
        f"({_said('self', 'pipeline.name')}) == ({_said('oldSelf', 'pipeline.name')}) && "
        f"(!({_said('self', 'pipeline.name')}) || self.pipeline.name == oldSelf.pipeline.name)",
        "pipeline.name cannot be set, changed or removed afterwards: it is how the recurring run "
        "is found. Make a new SearchAgent",
        ".pipeline.name",
        "FieldValueForbidden",
    ),
)

RULES: dict[str, tuple[Rule, ...]] = {
    "": _SPEC,
    "data": (
        Rule(
            "!has(self.train) || !has(self.test) || !self.train.exists(f, f in self.test)",
            "test may not name a file that train names: the gate would compare on questions that "
            "were trained on",
            ".test",
        ),
    ),
    "retrieval.url": (_URL,),
    "pipeline.host": (_URL,),
    "pipeline.schedule.cron": (
        Rule(
            "self.matches('^[^ ]+( +[^ ]+){5}$')",
            "must have six fields, seconds first, such as '0 0 3 * * 6' for Saturdays at three",
        ),
    ),
    "canary.prometheus": (_URL,),
    "cluster.storage": (
        Rule(
            f"{_or('self', 'claim', _STORAGE.claim)} != '' || "
            f"{_or('self', 'root', _STORAGE.root)}.contains('://')",
            "without a claim, root must be a URL such as s3://bucket: pods have no other place in "
            "common",
            ".root",
        ),
    ),
    "cluster.training": (
        Rule(
            f"!has(self.elastic) || {_or('self', 'launcher', _PLACEMENT.launcher)} == 'pytorchjob'",
            "elastic needs launcher pytorchjob: the others take a fixed number of nodes",
            ".elastic",
        ),
        Rule(
            f"!has(self.elastic) || ({_or('self.elastic', *_MIN)} <= "
            f"{_or('self', 'nodes', _PLACEMENT.nodes)} && "
            f"{_or('self', 'nodes', _PLACEMENT.nodes)} <= {_or('self.elastic', *_MAX)})",
            "nodes must lie between elastic.min_nodes and elastic.max_nodes: it is the number to "
            "start with",
            ".nodes",
        ),
    ),
    "cluster.training.elastic": (
        Rule(
            f"{_or('self', *_MIN)} <= {_or('self', *_MAX)}", "min_nodes may not exceed max_nodes"
        ),
    ),
    **{
        f"cluster.{place}": (_QUANTITY,)
        for place in (
            "storage.size", "storage.scratch", "training.shared_memory",
            "training.resources.cpu", "training.resources.memory", "training.extra_resources.*",
            "index.cpu", "index.memory", "rollout.cpu", "rollout.memory", "tools.cpu",
            "tools.memory", "predictor.cpu", "predictor.memory", "retriever.cpu",
            "retriever.memory",
        )
    },
}  # fmt: skip
"""By place in the spec (`""`: the spec itself; `*`: an entry of a map)."""
